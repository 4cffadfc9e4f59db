"""What is measured once and documented: accuracy, agreement, trajectories, equilibrium, losses."""

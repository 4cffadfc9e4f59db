"""Faults of a run that are no convention: what it is fed, records, samples, saves and restores."""

from tests.apparatus.planted.fault import Edit, Fault, everywhere
from tests.apparatus.planted.faults_of_checkpoints import CHECKPOINTS

_LOOP = "    for step in run.remaining_steps():\n"
_BY_BATCH = "(lambda state, network, x, training: train._forward(state, network, x, True))"


def _computes(settings: str) -> Edit:
    """Return the edit that makes a state of other settings than the options'."""
    own = "options.spec, options.compute,"
    return Edit("train.py", own, f"options.spec, type(options.compute){settings},")


RUNS: tuple[Fault, ...] = (
    *CHECKPOINTS,
    Fault(
        "stale_state_in_checkpoint",
        {},
        everywhere(
            Edit("train.py", _LOOP, f"    stale = export_state(state)\n{_LOOP}"),
            Edit(
                "train.py",
                "run.save_checkpoint(step, export_state(state))",
                "run.save_checkpoint(step, stale)",
            ),
        ),
    ),
    Fault(
        "restored_state_ignored",
        {},
        everywhere(Edit("train.py", "arrays=run.initial_arrays", "arrays=None")),
    ),
    Fault(
        "inputs_of_the_next_step",
        {},
        everywhere(Edit("train.py", "run.inputs(step)", "run.inputs(step + 1)")),
    ),
    Fault(
        "samples_by_batch_statistics",
        {},
        everywhere(
            Edit(
                "train.py",
                "generate(state, latents_to_device(state, run.sample_latents))",
                "generate(state, latents_to_device(state, run.sample_latents), training=True)",
            )
        ),
    ),
    Fault(
        "generate_moves_statistics",
        {},
        {
            "pytorch": (
                Edit("train.py", "        buffer.copy_(statistics[key])\n", "        pass\n"),
            ),
            "tf": (Edit("train.py", "            variable.assign(value)\n", "            pass\n"),),
        },
        absent={"jax": "a jitted function cannot change its arguments"},
    ),
    Fault(
        "losses_of_fake_and_real_exchanged",
        {},
        everywhere(
            Edit(
                "train.py",
                '"discriminator_loss_real": loss_real',
                '"discriminator_loss_real": loss_fake',
            ),
            Edit(
                "train.py",
                '"discriminator_loss_fake": loss_fake',
                '"discriminator_loss_fake": loss_real',
            ),
        ),
    ),
    Fault(
        "a_gpu_asked_for_is_a_cpu",
        {},
        everywhere(
            _computes('(options.dtype, device="auto")'),
            Edit("train.py", "select_device(options.device)", 'select_device("auto")'),
        ),
    ),
    Fault("seed_ignored", {}, everywhere(Edit("train.py", "seed=options.seed", "seed=0"))),
    Fault("dtype_ignored", {}, everywhere(_computes('("float32", device=options.device)'))),
    Fault(
        "samples_of_the_start",
        {},
        everywhere(
            Edit("train.py", _LOOP, f"    early = _samples(state, run)\n{_LOOP}"),
            Edit(
                "train.py",
                "run.save_samples(step, _samples(state, run))",
                "run.save_samples(step, early)",
            ),
        ),
    ),
    Fault(
        "checkpoint_of_the_step_before",
        {},
        everywhere(
            Edit("train.py", _LOOP, f"{_LOOP}        before = export_state(state)\n"),
            Edit(
                "train.py",
                "run.save_checkpoint(step, export_state(state))",
                "run.save_checkpoint(step, before)",
            ),
        ),
    ),
    Fault(
        "losses_of_the_step_before",
        {},
        everywhere(
            Edit("train.py", _LOOP, f"    earlier = None\n{_LOOP}"),
            Edit(
                "train.py",
                "        run.record(step, metrics)\n",
                "        run.record(step, earlier or metrics)\n        earlier = metrics\n",
            ),
        ),
    ),
    Fault(
        "gradients_move_the_state",
        {},
        {
            "pytorch": (Edit("adapter.py", "copy.deepcopy(state)", "state"),),
            "tf": (Edit("adapter.py", "        self.import_state(state, before)\n", ""),),
            "jax": (
                Edit(
                    "adapter.py",
                    "            return checkpoint.export_gradients(",
                    "            train.train_step(state, *batches)\n"
                    "            return checkpoint.export_gradients(",
                ),
            ),
        },
    ),
    Fault(
        "scores_by_batch_statistics",
        {},
        everywhere(
            Edit("train.py", '"discriminator", images, training)', '"discriminator", images, True)')
        ),
    ),
    Fault(
        "activations_by_batch_statistics",
        {},
        {
            **dict.fromkeys(
                ("pytorch", "tf"), (Edit("adapter.py", "(train._forward)", _BY_BATCH),)
            ),
            "jax": (Edit("adapter.py", "if not training:", "if False:"),),
        },
    ),
    Fault(
        "left_in_evaluation",
        {},
        {"pytorch": (Edit("train.py", "    network.train()\n", ""),)},
        absent=dict.fromkeys(("tf", "jax"), "the mode is an argument of every call"),
    ),
)
"""`deviation` is empty: no convention of the reference makes these mistakes."""

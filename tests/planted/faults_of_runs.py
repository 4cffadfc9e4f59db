"""Faults of a run that are no convention: checkpoints, resuming, samples, what changes a state."""

from __future__ import annotations

from tests.planted.fault import Edit, Fault, everywhere

RUNS: tuple[Fault, ...] = (
    Fault(
        "counter_not_restored",
        {},
        {
            "pytorch": (Edit("checkpoint.py", ".fill_(steps)", ".fill_(0.0 * steps)"),),
            "tf": (
                Edit(
                    "checkpoint.py",
                    "        variable.assign(np.asarray(arrays[name]).astype(dtype))\n",
                    '        if not name.endswith("/step"):\n'
                    "            variable.assign(np.asarray(arrays[name]).astype(dtype))\n",
                ),
            ),
            "jax": (
                Edit("checkpoint.py", "        count, replaced(", "        0 * count, replaced("),
            ),
        },
    ),
    Fault(
        "moments_exchanged_on_import",
        {},
        {
            "pytorch": (
                Edit(
                    "checkpoint.py",
                    'for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):\n'
                    "                moments.setdefault",
                    'for moment, key in (("v", "exp_avg"), ("m", "exp_avg_sq")):\n'
                    "                moments.setdefault",
                ),
            ),
            "tf": (
                Edit(
                    "checkpoint.py",
                    'variables[optimizer_name(name, "m")] = optimizer.first_moments[i]\n'
                    '                variables[optimizer_name(name, "v")]',
                    'variables[optimizer_name(name, "v")] = optimizer.first_moments[i]\n'
                    '                variables[optimizer_name(name, "m")]',
                ),
            ),
            "jax": (
                Edit(
                    "checkpoint.py",
                    'replaced(adam_state.mu, "m"), replaced(adam_state.nu, "v")',
                    'replaced(adam_state.mu, "v"), replaced(adam_state.nu, "m")',
                ),
            ),
        },
    ),
    Fault(
        "stale_state_in_checkpoint",
        {},
        {
            **everywhere(
                Edit(
                    "train.py",
                    "    for step in run.remaining_steps():\n",
                    "    stale = export_state(state)\n    for step in run.remaining_steps():\n",
                ),
                Edit(
                    "train.py",
                    "run.save_checkpoint(step, export_state(state))",
                    "run.save_checkpoint(step, stale)",
                ),
            )
        },
    ),
    Fault(
        "restored_state_ignored",
        {},
        everywhere(Edit("train.py", "if run.restored is not None:", "if False:")),
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
        "kernel_transposed_in_checkpoints",
        {},
        {
            "pytorch": (
                Edit(
                    "checkpoint.py",
                    "values = values.permute(2, 3, 1, 0)",
                    "values = values.permute(3, 2, 1, 0)",
                ),
                Edit(
                    "checkpoint.py",
                    "values = values.permute(3, 2, 0, 1)",
                    "values = values.permute(3, 2, 1, 0)",
                ),
            ),
        },
        absent=dict.fromkeys(("tf", "jax"), "kernels are kept in the canonical layout"),
    ),
    Fault(
        "losses_of_fake_and_real_exchanged",
        {},
        {
            "pytorch": (
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
        },
        absent=dict.fromkeys(("tf", "jax"), "the same dictionary as PyTorch's"),
    ),
    Fault(
        "missing_arrays_accepted",
        {},
        everywhere(
            Edit(
                "checkpoint.py",
                '    check_arrays(arrays, state_shapes(state.spec), "the state")\n',
                "",
            )
        ),
    ),
    Fault(
        "a_gpu_asked_for_is_a_cpu",
        {},
        {
            "pytorch": (
                Edit(
                    "state.py",
                    'if name == "gpu" and not torch.cuda.is_available():',
                    'if name == "gpu" and False:',
                ),
            ),
        },
        absent=dict.fromkeys(("tf", "jax"), "the same check, written for one framework here"),
    ),
)
"""`deviation` is empty: no convention of the reference makes these mistakes."""

"""Faults of checkpoints and of the frameworks' own files, which no convention has."""

from tests.apparatus.planted.fault import Edit, Fault, everywhere


def _zero_in_jax(*endings: str) -> Edit:
    """Return the edit that imports zeros for arrays with one of these endings."""
    put = "parallel.put(array, "
    return Edit("checkpoint.py", put, f"parallel.put(array * (not name.endswith({endings!r})), ")


def _skipped_in_tf(*endings: str) -> Edit:
    """Return the edit that restores no array with one of these endings."""
    assign = "variable.assign(np.asarray(arrays[name]).astype(variable.dtype))\n"
    return Edit(
        "checkpoint.py",
        f"        {assign}",
        f"        if not name.endswith({endings!r}):\n            {assign}",
    )


CHECKPOINTS: tuple[Fault, ...] = (
    Fault(
        "counter_not_restored",
        {},
        {
            "pytorch": (Edit("checkpoint.py", ".fill_(steps)", ".fill_(0.0 * steps)"),),
            "tf": (_skipped_in_tf("/step"),),
            "jax": (_zero_in_jax("/step"),),
        },
    ),
    Fault(
        "moments_exchanged_on_import",
        {},
        {
            "pytorch": (
                Edit(
                    "checkpoint.py",
                    "held = arrays[optimizer_name(name, KEPT[key])]",
                    'held = arrays[optimizer_name(name, {"m": "v", "v": "m"}[KEPT[key]])]',
                ),
            ),
            "tf": (
                Edit(
                    "checkpoint.py",
                    "optimizer_name(name, m) for m in kept",
                    "optimizer_name(name, m) for m in reversed(kept)",
                ),
            ),
            "jax": (
                Edit(
                    "checkpoint.py",
                    "optimizer_name(name, moment)] = held",
                    'optimizer_name(name, {"m": "v", "v": "m"}[moment])] = held',
                ),
            ),
        },
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
        "statistics_not_restored",
        {},
        {
            "pytorch": (
                Edit(
                    "checkpoint.py",
                    "            tensor.copy_(to_native(arrays[name], pixels.get(name)))\n",
                    "            if parameter.trainable:\n"
                    "                tensor.copy_(to_native(arrays[name], pixels.get(name)))\n",
                ),
            ),
            "tf": (_skipped_in_tf("/mean", "/var"),),
        },
        absent={"jax": "a fresh state has no statistics before it imports some"},
    ),
    Fault(
        "moments_not_restored",
        {},
        {
            "pytorch": (
                Edit(
                    "checkpoint.py", "moments[key].copy_(to_native(held, pixels.get(name)))", "pass"
                ),
            ),
            "tf": (_skipped_in_tf("/m", "/v"),),
            "jax": (_zero_in_jax("/m", "/v"),),
        },
    ),
    Fault(
        "counter_exported_behind",
        {},
        {
            "pytorch": (Edit("checkpoint.py", "np.array(int(steps)", "np.array(int(steps) - 1"),),
            "tf": (
                Edit(
                    "checkpoint.py",
                    "variables[name].numpy()) for",
                    'variables[name].numpy() - name.endswith("/step")) for',
                ),
            ),
            "jax": (
                Edit(
                    "checkpoint.py",
                    "variables[name][...]) for",
                    'variables[name][...] - name.endswith("/step")) for',
                ),
            ),
        },
    ),
    Fault(
        "counter_of_the_generator_for_both",
        {},
        {
            "pytorch": (
                Edit(
                    "checkpoint.py",
                    'float(arrays[f"{network}_optimizer/step"])',
                    'float(arrays["generator_optimizer/step"])',
                ),
            ),
            **dict.fromkeys(
                ("tf", "jax"),
                (
                    Edit(
                        "checkpoint.py",
                        "arrays[name]).astype",
                        'arrays[name.replace("discriminator_optimizer/step", '
                        '"generator_optimizer/step")]).astype',
                    ),
                ),
            ),
        },
    ),
    Fault(
        "native_moments_exchanged",
        {},
        {
            "pytorch": (
                Edit(
                    "native_format.py",
                    '{"m": "exp_avg", "v": "exp_avg_sq"}',
                    '{"v": "exp_avg", "m": "exp_avg_sq"}',
                ),
            ),
            "jax": (Edit("native_format.py", '{"m": "mu", "v": "nu"}', '{"v": "mu", "m": "nu"}'),),
        },
        absent={"tf": "its own format has no place for Adam"},
    ),
    Fault(
        "native_variables_turned_around",
        {},
        {
            "pytorch": (
                Edit(
                    "native_format.py",
                    "to_native(contents.arrays[name], pixels.get(name))",
                    "to_native(contents.arrays[name], None)",
                ),
            ),
            "tf": (
                Edit(
                    "native_format.py",
                    "enumerate(layer.parameters)",
                    "enumerate(layer.parameters[::-1])",
                ),
            ),
        },
        absent={"jax": "a tree of names has no order"},
    ),
)

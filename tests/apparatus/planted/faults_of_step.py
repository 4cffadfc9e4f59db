"""Faults of the training step: what is updated, on what, and in which order."""

from typing import Any

from tests.apparatus.planted.fault import Edit, Edits, Fault, everywhere

_LOOP = "    for real_batch, latent_batch in zip(real_batches, latent_batches, strict=False):\n"
_ANEW = '    if spec.generator_batch != "same_images":\n'


def _batch_part(part: str) -> Edits:
    halves = (
        "    half = real_batches[0].shape[0] // 2\n"
        f"    real_batches = [batch[{part}] for batch in real_batches]\n"
        f"    latent_batches = [batch[{part}] for batch in latent_batches]\n"
    )
    return everywhere(Edit("train.py", _LOOP, halves + _LOOP))


def _updates_of_discriminator(real: str, latents: str) -> Edits:
    zipped = "zip(real_batches, latent_batches,"
    return everywhere(Edit("train.py", zipped, f"zip({real}, {latents},"))


def _half_of_loss(half: str) -> Edits:
    return {
        "pytorch": (
            Edit(
                "train.py", '"discriminator", loss_real + loss_fake)', f'"discriminator", {half})'
            ),
        ),
        "tf": (Edit("train.py", "total = loss_real + loss_fake", f"total = {half}"),),
        "jax": (Edit("train.py", "return loss_real + loss_fake, (", f"return {half}, ("),),
    }


# PyTorch: the discriminator's backward pass goes on into the generator, whose gradients nobody
# sets to zero before its own. In the others a gradient is never taken by accident, so the fault is
# to let the generator descend the sum of both losses.
_NOT_DETACHED: Edits = {
    "pytorch": (
        Edit("train.py", "real_batch, fake_images.detach()", "real_batch, fake_images"),
        Edit("train.py", "    loss.backward()\n", "    loss.backward(retain_graph=True)\n"),
        Edit(
            "train.py",
            "    optimizer.zero_grad(set_to_none=True)\n",
            '    if name == "discriminator":\n        optimizer.zero_grad(set_to_none=True)\n',
        ),
        Edit(
            "train.py",
            "    latent_batches = latents.chunk(",
            "    state.generator_optimizer.zero_grad(set_to_none=True)\n"
            "    latent_batches = latents.chunk(",
        ),
    ),
    "tf": (
        Edit("train.py", "tf.stop_gradient(fake_images)", "fake_images"),
        Edit(
            "train.py",
            "    with tf.GradientTape() as tape:\n        scores =",
            "    with tf.GradientTape(persistent=True) as tape:\n"
            "        tape.watch(fake_images)\n        scores =",
        ),
        Edit(
            "train.py",
            "return loss_real, loss_fake, gradients",
            "return loss_real, loss_fake, (gradients, tape.gradient(total, fake_images))",
        ),
        Edit(
            "train.py",
            "loss_real, loss_fake, discriminator_gradients = ",
            "loss_real, loss_fake, (discriminator_gradients, leaked) = ",
        ),
        Edit(
            "train.py",
            "update_generator(state, fake_images, tape)",
            "update_generator(state, fake_images, tape, leaked)",
        ),
        Edit(
            "train.py",
            "generator_tape: tf.GradientTape\n",
            "generator_tape: tf.GradientTape, leaked: Tensor\n",
        ),
        Edit(
            "train.py",
            "tape.gradient(generator_loss, fake_images)",
            "tape.gradient(generator_loss, fake_images) + leaked",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            "def total(discriminator: nnx.Module)",
            "def total(discriminator: nnx.Module, fake_images: Tensor)",
        ),
        Edit(
            "train.py",
            "nnx.grad(total, has_aux=True)(state.discriminator)",
            "nnx.grad(total, argnums=(0, 1), has_aux=True)(\n"
            "        state.discriminator, fake_images\n    )",
        ),
        Edit(
            "train.py",
            "update(state.discriminator, gradients)",
            "update(state.discriminator, gradients[0])",
        ),
        Edit(
            "train.py",
            "discriminator_gradients = update",
            "(discriminator_gradients, leaked) = update",
        ),
        Edit(
            "train.py",
            "update_generator(state, fake_images, backward)",
            "update_generator(state, fake_images, lambda g: backward(g + leaked))",
        ),
    ),
}

_SIMULTANEOUS: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "    optimizer.step()\n",
            '    if name == "generator":\n        optimizer.step()\n',
        ),
        Edit(
            "train.py",
            "    metrics = {\n",
            "    state.discriminator_optimizer.step()\n    metrics = {\n",
        ),
    ),
    "tf": (
        Edit(
            "train.py",
            "    state.optimizer(name).apply(gradients)\n",
            '    if name == "generator":\n        state.optimizer(name).apply(gradients)\n',
        ),
        Edit(
            "train.py",
            "    metrics = {\n",
            "    state.discriminator_optimizer.apply(discriminator_gradients)\n    metrics = {\n",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            "    state.discriminator_optimizer.update(state.discriminator, gradients)\n",
            "",
        ),
        Edit(
            "train.py",
            "    metrics = {\n",
            "    network, own = state.discriminator, discriminator_gradients\n"
            "    state.discriminator_optimizer.update(network, own)\n    metrics = {\n",
        ),
    ),
}


def _moved_up(update: str, discriminators: str) -> tuple[Edit, ...]:
    """Return the edits that make the generator's update before the discriminator's."""
    return (
        Edit("train.py", f"    {update}\n", ""),
        Edit(
            "train.py", f"        {discriminators}", f"        {update}\n        {discriminators}"
        ),
    )


_GENERATOR_FIRST: Edits = {
    framework: _moved_up(
        f"generator_loss, generator_gradients = update_generator(state, fake_images{way_back})",
        "loss_real, loss_fake, discriminator_gradients = update_discriminator(",
    )
    for framework, way_back in (("pytorch", ""), ("tf", ", tape"), ("jax", ", backward"))
}

_SAME_LATENTS = everywhere(Edit("train.py", _ANEW, "    if spec.generator_batch:\n"))
_SAME_IMAGES_OF_NEW = everywhere(
    Edit("train.py", _ANEW, '    if spec.generator_batch == "same_latents":\n')
)
_SAME_LATENTS_OF_NEW = everywhere(Edit("train.py", "latent_batches[-1]", "latent_batches[-2]"))
_TWO_UPDATES = {"discriminator_steps": 2}
_NEW_LATENTS = {"generator_batch": "new_latents"}


def _generator_batch(made: str, edits: Edits, **shows_in: Any) -> Fault:
    of = "_of_new" if shows_in else ""
    return Fault(f"generator_on_{made}{of}", {"generator_batch": made}, edits, **shows_in)


STEP = (
    Fault("first_half_of_batch", {"batch_part": "first_half"}, _batch_part(":half")),
    Fault("second_half_of_batch", {"batch_part": "second_half"}, _batch_part("half:")),
    Fault("real_half_of_loss", {"discriminator_halves": "real_only"}, _half_of_loss("loss_real")),
    Fault("fake_half_of_loss", {"discriminator_halves": "fake_only"}, _half_of_loss("loss_fake")),
    Fault(
        "one_update_too_few",
        {"discriminator_step_offset": -1},
        _updates_of_discriminator("real_batches[:-1]", "latent_batches"),
        spec_changes=_TWO_UPDATES,
    ),
    Fault(
        "one_update_too_many",
        {"discriminator_step_offset": 1},
        _updates_of_discriminator(
            "[*real_batches, real_batches[-1]]", "[*latent_batches, latent_batches[-1]]"
        ),
    ),
    _generator_batch("same_latents", _SAME_LATENTS),
    _generator_batch("same_images", _SAME_IMAGES_OF_NEW, spec_changes=_NEW_LATENTS),
    _generator_batch("same_latents", _SAME_LATENTS_OF_NEW, spec_changes=_NEW_LATENTS),
    Fault("fake_not_detached", {"detach_fake": False}, _NOT_DETACHED),
    Fault("stale_discriminator", {"update_order": "simultaneous"}, _SIMULTANEOUS),
    Fault("generator_first", {"update_order": "generator_first"}, _GENERATOR_FIRST),
)

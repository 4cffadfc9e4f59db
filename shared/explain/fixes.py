"""What to write instead of each mistake, in each framework, and its row in docs/porting.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fix:
    """The anchor of a row of docs/porting.md, and what each framework's user writes."""

    row: str
    pytorch: str
    tf: str
    jax: str


def _same(row: str, text: str) -> Fix:
    return Fix(row, text, text, text)


FIXES: dict[str, Fix] = {
    "batch_norm_epsilon": Fix(
        "batch-norm-epsilon",
        "nn.BatchNorm2d(n, eps=1e-5), its default",
        "BatchNormalization(epsilon=1e-5); the default is 1e-3",
        "nnx.BatchNorm(n, epsilon=1e-5), its default",
    ),
    "batch_norm_momentum": Fix(
        "batch-norm-momentum",
        "nn.BatchNorm2d(n, momentum=0.1): the weight of the new statistic",
        "BatchNormalization(momentum=0.9): the weight of the old one; the default is 0.99",
        "nnx.BatchNorm(n, momentum=0.9): the weight of the old one; the default is 0.99",
    ),
    "batch_norm_running_variance": Fix(
        "batch-norm-variance",
        "nn.BatchNorm2d, which is unbiased",
        "multiply the batch's variance by n / (n - 1) for the running one: tf_impl.layers",
        "multiply the batch's variance by n / (n - 1) for the running one: jax_impl.layers",
    ),
    "batch_norm_mode": Fix(
        "batch-norm-frozen",
        "network.train() in every pass of a step; freeze D by requires_grad_(False), not by eval()",
        "training=True in every pass of a step; never trainable = False, which switches BN too",
        "training mode (use_running_average=False) in every pass of a step",
    ),
    "batch_norm_statistics": Fix(
        "batch-norm-not-threaded",
        "let every pass in training mode move the buffers; do not restore them",
        "let every pass in training mode move the variables",
        "carry the BatchStat of each pass to the next one and out of the step, of both networks",
    ),
    "batch_norm_replicas": Fix(
        "batch-norm-replicas",
        "nn.SyncBatchNorm.convert_sync_batchnorm(network) before DistributedDataParallel",
        "all_reduce the batch's mean and variance in the replica context, or "
        "keras.layers.BatchNormalization(synchronized=True)",
        "one jit over the mesh, where the batch axis is global; in shard_map or pmap "
        "jax.lax.pmean of mean and variance",
    ),
    "discriminator_batches": _same(
        "batch-norm-batches", "pass real and fake images through D as two batches"
    ),
    "leaky_relu_slope": Fix(
        "leaky-relu-slope",
        "F.leaky_relu(x, 0.2); the default is 0.01",
        "tf.where(x > 0, x, 0.2 * x); keras.layers.LeakyReLU has 0.3",
        "jnp.where(x > 0, x, 0.2 * x); jax.nn.leaky_relu has 0.01",
    ),
    "leaky_relu_gradient_at_zero": Fix(
        "leaky-relu-gradient-at-zero",
        "F.leaky_relu, whose gradient at 0 is the slope",
        "tf.where(x > 0, x, 0.2 * x)",
        "jnp.where(x > 0, x, 0.2 * x); jax.nn.leaky_relu has x >= 0",
    ),
    "generator_activation": _same("generator-activation", "ReLU in G; leaky ReLU in D alone"),
    "generator_output": _same(
        "generator-output", "squash G's last layer as the system says: tanh or sigmoid, once"
    ),
    "discriminator_output": _same(
        "discriminator-output",
        "logits for bce, minimax and lsgan; a sigmoid, once, for bce_probs alone",
    ),
    "conv_kernel": Fix(
        "conv-kernel",
        "OIHW: weight.permute(2, 3, 1, 0) is HWIO; nothing is flipped",
        "HWIO: transpose(3, 2, 0, 1) is OIHW; nothing is flipped",
        "HWIO, as TensorFlow; nothing is flipped",
    ),
    "conv_transpose_kernel": Fix(
        "conv-transpose-flip",
        "IOHW: weight.permute(2, 3, 1, 0) is HWOI; nothing is flipped",
        "HWOI; nothing is flipped",
        "lax.conv_transpose(..., transpose_kernel=True) for HWOI",
    ),
    "flatten_order": Fix(
        "flatten-order",
        "reorder the dense kernel's rows: PyTorch flattens NCHW",
        "flatten NHWC; reorder a kernel that comes from PyTorch",
        "flatten NHWC; reorder a kernel that comes from PyTorch",
    ),
    "padding_alignment": Fix(
        "same-padding",
        "padding=1 on both sides of a 4x4 kernel of stride 2",
        "padding='same' on even sizes, which is one row on both sides",
        "padding=((1, 1), (1, 1)); ((2, 2), (2, 2)) in lax.conv_transpose",
    ),
    "loss_reduction": Fix(
        "loss-reduction",
        "reduction='mean'",
        "tf.reduce_mean over the batch",
        "jnp.mean over the batch; optax returns elements",
    ),
    "discriminator_loss_scale": _same(
        "discriminator-loss-half", "the sum of the mean on real and the mean on fake, not halved"
    ),
    "lsgan_scale": Fix(
        "lsgan-half",
        "0.5 * F.mse_loss(scores, label)",
        "0.5 * tf.reduce_mean((scores - label) ** 2)",
        "optax.l2_loss, which has the half; optax.squared_error has not",
    ),
    "real_label": _same("discriminator-labels", "1 for real images"),
    "fake_label": _same("discriminator-labels", "0 for fake images"),
    "generator_label": _same("generator-objective", "1 for fake images in G's loss"),
    "probability_clipping": Fix(
        "probability-clipping",
        "nn.BCELoss, which holds its logarithms at -100",
        "tf.maximum(tf.math.log(p), -100.0); Keras clips p at 1e-7",
        "jnp.maximum(jnp.log(p), -100.0)",
    ),
    "generator_objective": _same(
        "generator-objective",
        "bce: descend -log D(G(z)); minimax: descend log(1 - D(G(z)))",
    ),
    "batch_part": _same("batch-part", "use every image and every latent of the batch"),
    "discriminator_halves": _same(
        "discriminator-halves", "descend the loss on real images and that on fake images"
    ),
    "discriminator_step_offset": _same(
        "discriminator-step-count", "as many updates of D as the spec says, each on its own batch"
    ),
    "generator_batch": _same(
        "generator-batch", "let G learn on what the spec's generator_batch says"
    ),
    "detach_fake": Fix(
        "detach",
        "discriminator(fake_images.detach())",
        "differentiate D's loss by D's variables alone, or tf.stop_gradient(fake_images)",
        "differentiate D's loss by D's parameters alone, or lax.stop_gradient(fake_images)",
    ),
    "update_order": _same(
        "update-order", "update D first, then run G's images through the updated D"
    ),
    "generator_learning_rate": _same(
        "learning-rates", "G's own learning rate: spec.generator_optimizer.learning_rate"
    ),
    "discriminator_learning_rate": _same(
        "learning-rates", "D's own learning rate: spec.discriminator_optimizer.learning_rate"
    ),
    "adam_beta1": Fix(
        "adam-beta1", "Adam(..., betas=(0.5, 0.999))", "beta_1=0.5", "optax.adam(rate, b1=0.5)"
    ),
    "adam_beta2": Fix(
        "adam-beta2", "Adam(..., betas=(0.5, 0.999))", "beta_2=0.999", "optax.adam(rate, b2=0.999)"
    ),
    "adam_epsilon": Fix(
        "adam-epsilon-value",
        "eps=1e-8, the default",
        "epsilon=1e-8; the default is 1e-7",
        "eps=1e-8, the default",
    ),
    "adam_epsilon_placement": Fix(
        "adam-epsilon-placement",
        "torch.optim.Adam, which adds it after the bias correction",
        "tf_impl.layers.Adam: Keras adds it before the bias correction",
        "optax.adam(eps=...), not eps_root",
    ),
    "adam_bias_correction": _same(
        "adam-bias-correction", "divide m by 1 - beta1^t and v by 1 - beta2^t"
    ),
    "adam_step_offset": _same(
        "adam-step", "the first update has t = 1; carry the counter with the moments"
    ),
    "adam_weight_decay": Fix(
        "adam-weight-decay",
        "weight_decay=0, the default",
        "weight_decay=None, the default",
        "optax.adam, not optax.adamw",
    ),
    "dtype": Fix(
        "keras-layer-dtype",
        "network.double(), and float64 inputs",
        'dtype="float64" on every layer; tf.constant(0.2, tf.float64), not tf.cast',
        "jax.enable_x64, and dtype and param_dtype of every layer",
    ),
    "initializer": Fix(
        "dense-default-init",
        "state each initializer: nn.init.normal_(weight, 0.0, 0.02)",
        "state each initializer: the default is Glorot uniform",
        "state each initializer: the default is LeCun normal",
    ),
}

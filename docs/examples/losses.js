// The four losses with their gradients, and Adam, for the conformance kit; Node.js, no packages:
//
//     python -m shared.conformance --command 'node docs/examples/losses.js'
//
// Everything is computed in float64. For float32 the inputs are float32 numbers and each result is
// rounded once. docs/conformance.md describes the protocol.
"use strict";

const readline = require("node:readline");

const GRADIENT_FLOOR = Math.fround(1e-12); // of p(1 - p), as in torch.nn.BCELoss
const LOG_FLOOR = -100;

// --- arrays: {dtype, shape, data} with little-endian bytes in base64 ---------------------------

const KINDS = {
  float64: { bytes: 8, read: "getFloat64", write: "setFloat64" },
  float32: { bytes: 4, read: "getFloat32", write: "setFloat32" },
};

function kindOf(dtype) {
  if (!(dtype in KINDS)) {
    throw new Refusal(`dtype ${dtype}; expected float32 or float64`);
  }
  return KINDS[dtype];
}

function decode({ dtype, data }) {
  const { bytes, read } = kindOf(dtype);
  const buffer = Buffer.from(data, "base64");
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  return Array.from({ length: buffer.length / bytes }, (_, i) => view[read](i * bytes, true));
}

function encode(values, shape, dtype) {
  const { bytes, write } = kindOf(dtype);
  const view = new DataView(new ArrayBuffer(values.length * bytes));
  values.forEach((value, i) => view[write](i * bytes, value, true)); // setFloat32 rounds
  return { dtype, shape, data: Buffer.from(view.buffer).toString("base64") };
}

// --- losses: the value and the derivative of one score against one label ----------------------

const softplus = (x) => (Number.isNaN(x) ? x : Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))));
const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

// A term of weight 0 is left out, so that an infinite score never becomes 0 · ∞.
function crossEntropyWithLogits(x, label) {
  let [value, gradient] = [0, 0];
  if (label !== 0) {
    value += label * softplus(-x);
    gradient -= label * sigmoid(-x);
  }
  if (label !== 1) {
    value += (1 - label) * softplus(x);
    gradient += (1 - label) * sigmoid(x);
  }
  return [value, gradient];
}

function crossEntropy(p, label) {
  const logarithm = Math.max(Math.log(p), LOG_FLOOR);
  const complement = Math.max(Math.log1p(-p), LOG_FLOOR);
  const denominator = Math.max(p * (1 - p), GRADIENT_FLOOR);
  return [-label * logarithm - (1 - label) * complement, (p - label) / denominator];
}

const halfSquaredError = (x, label) => [0.5 * (x - label) ** 2, x - label];

const LOSSES = {
  bce: crossEntropyWithLogits,
  minimax: crossEntropyWithLogits,
  bce_probs: crossEntropy,
  lsgan: halfSquaredError,
};

function averaged(formula, scores, label, sign = 1) {
  const pairs = scores.map((score) => formula(score, label));
  const sum = pairs.reduce((total, [value]) => total + value, 0);
  return {
    value: (sign * sum) / scores.length,
    gradient: pairs.map(([, gradient]) => (sign * gradient) / scores.length),
  };
}

function loss({ loss: name, real_scores, fake_scores, labels }) {
  if (!(name in LOSSES)) {
    throw new Error(`unknown loss ${name}; expected one of ${Object.keys(LOSSES).join(", ")}`);
  }
  const { real_label = 1, fake_label = 0, generator_label = 1 } = labels;
  const { dtype, shape } = fake_scores;
  const fake = decode(fake_scores);
  const ofReal = averaged(LOSSES[name], decode(real_scores), real_label);
  const ofFake = averaged(LOSSES[name], fake, fake_label);
  const ofGenerator =
    name === "minimax" // saturating: minus the discriminator's loss on fake images
      ? averaged(LOSSES[name], fake, fake_label, -1)
      : averaged(LOSSES[name], fake, generator_label);
  return {
    discriminator: encode([ofReal.value + ofFake.value], [], dtype),
    generator: encode([ofGenerator.value], [], dtype),
    discriminator_real_gradient: encode(ofReal.gradient, real_scores.shape, dtype),
    discriminator_fake_gradient: encode(ofFake.gradient, shape, dtype),
    generator_fake_gradient: encode(ofGenerator.gradient, shape, dtype),
  };
}

// --- Adam: Kingma & Ba 2015, Algorithm 1 -------------------------------------------------------

function adam({ parameter, gradient, m, v, step, settings }) {
  const { learning_rate, beta1, beta2, epsilon } = settings;
  // 1 - βᵗ without cancellation for a β near 1.
  const correction1 = -Math.expm1(step * Math.log(beta1));
  const correction2 = -Math.expm1(step * Math.log(beta2));
  const [p, g, oldM, oldV] = [parameter, gradient, m, v].map(decode);
  const newM = g.map((x, i) => beta1 * oldM[i] + (1 - beta1) * x);
  const newV = g.map((x, i) => beta2 * oldV[i] + (1 - beta2) * x * x);
  const moved = p.map((x, i) => {
    const update = newM[i] / correction1 / (Math.sqrt(newV[i] / correction2) + epsilon);
    return x - learning_rate * update;
  });
  const { dtype, shape } = parameter;
  return {
    parameter: encode(moved, shape, dtype),
    m: encode(newM, shape, dtype),
    v: encode(newV, shape, dtype),
  };
}

// --- the protocol ------------------------------------------------------------------------------

class Refusal extends Error {}

const METHODS = { loss, adam };

function answer({ id, method, arguments: given }) {
  try {
    if (!(method in METHODS)) {
      throw new Error(`no method ${method}; offered are ${Object.keys(METHODS).join(", ")}`);
    }
    return { id, result: METHODS[method](given) };
  } catch (error) {
    const kind = error instanceof Refusal ? "refused" : "failed";
    return { id, error: { kind, message: error.message } };
  }
}

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

say({ hello: { protocol: 1, name: "losses.js", methods: Object.keys(METHODS) } });
readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => say(answer(JSON.parse(line))));

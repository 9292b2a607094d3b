import { type Device, eye, type Tensor, tensor } from "@lowrank/tensor";

/**
 * What makes skew-symmetric matrices of their upper triangles, row by row: [blocks, size (size − 1) / 2] → [blocks, size, size].
 * torch.triu_indices(size, size, 1) and Q = M − Mᵀ.
 */
export function skewSymmetric(size: number, device: Device): { of(triangles: Tensor): Tensor; readonly tensors: readonly Tensor[] } {
  const index = new Int32Array(size * size);
  const sign = new Float32Array(size * size);
  let next = 0;
  for (let row = 0; row < size; row++) {
    for (let column = row + 1; column < size; column++) {
      index[row * size + column] = next;
      index[column * size + row] = next++;
      sign[row * size + column] = 1;
      sign[column * size + row] = -1;
    }
  }
  // Made once: a forward that is not compiled would upload them each time.
  const [indices, signs] = [tensor(index, { device, dtype: "i32" }), tensor(sign, { device })];
  return {
    of: (triangles) =>
      triangles
        .gather(indices, 1)
        .mul(signs)
        .reshape([triangles.shape[0] ?? 0, size, size]),
    tensors: [indices, signs],
  };
}

/**
 * Inverses of I + Q, [blocks, size, size], by Newton's iteration X ← X (2 I − (I + Q) X) (Schulz 1933), which always converges here: Q is
 * skew-symmetric, so the eigenvalues of I + Q are 1 ± iθ. Only the last step carries a gradient, which at X = (I + Q)⁻¹ is the inverse's
 * own, −X dQ X. f32 accuracy up to ‖Q‖ of about 30. torch.linalg.inv.
 */
function inverseOfOnePlus(q: Tensor, identity: Tensor): Tensor {
  const matrix = identity.add(q);
  const fixed = matrix.detach();
  // ‖Q‖² ≤ ‖Q‖²_F / 2, since singular values come in pairs.
  const bound = q.detach().square().sum([1, 2], { keepDims: true }).div(2).add(1);
  const step = (x: Tensor, of: Tensor): Tensor => x.matmul(identity.mul(2).sub(of.matmul(x)));
  let x = fixed.transpose(1, 2).div(bound);
  for (let i = 0; i < 14; i++) x = step(x, fixed);
  return step(x.detach(), matrix);
}

/** Cayley's transform R = (I − Q)(I + Q)⁻¹, orthogonal (Liu et al. 2021). [blocks, size, size] → the same. */
export function cayley(q: Tensor): Tensor {
  const identity = eye(q.shape[1] ?? 0, { device: q.device });
  return inverseOfOnePlus(q, identity).mul(2).sub(identity);
}

/**
 * The Neumann series of Cayley's transform of −Q (PEFT turns the other way here) cut after `terms`, as PEFT computes it: I + 2 Q + 2 Q² + … + Q^(terms − 1), where for 3 terms Q³ comes on top of
 * 2 Q². Nearly orthogonal for small Q. peft.tuners.oft.layer.OFTRotationModule._cayley_batch.
 */
export function cayleyNeumann(q: Tensor, terms: number): Tensor {
  const identity = eye(q.shape[1] ?? 0, { device: q.device }).expand(q.shape);
  if (terms <= 1) return identity;
  let sum = identity.add(q.mul(2));
  if (terms === 2) return sum;
  let power = q.matmul(q);
  sum = sum.add(power.mul(2));
  for (let i = 3; i < terms - 1; i++) {
    power = power.matmul(q);
    sum = sum.add(power.mul(2));
  }
  return sum.add(power.matmul(q));
}

/** Blocks of the last axis times a matrix each, or one for all: x [..., blocks · size], [blocks or 1, size, size] → x's shape. */
export function rotated(x: Tensor, rotations: Tensor): Tensor {
  const [count = 1, size = 1] = rotations.shape;
  const blocks = (x.shape[x.rank - 1] ?? 0) / size;
  if (count === 1) {
    return x
      .reshape([x.size / size, size])
      .matmul(rotations.reshape([size, size]))
      .reshape(x.shape);
  }
  const rows = x.reshape([x.size / (blocks * size), blocks, size]).permute([1, 0, 2]);
  return rows.matmul(rotations).permute([1, 0, 2]).reshape(x.shape);
}

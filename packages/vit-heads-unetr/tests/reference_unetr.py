"""Compute the values that test_unetr.py pins, from the specification and without our code.

    python packages/vit-heads-unetr/tests/reference_unetr.py

numpy alone: every convolution is written out as a sum over kernel positions, every bilinear
upsampling as two weighted neighbours per axis. Tensors are filled in the order in which the
specification lists the layers: paths z1 ... z4, then the merges, the last block, the classifier.
"""

import itertools

import numpy as np

EMBED_DIM, CLASSES, GRID = 6, 3, 2
WIDTHS = (16, 8, 8, 4, 4)
counter = itertools.count()


def fill(*shape, offset=0.0):
    """Fill the k-th tensor with offset + 0.1 sin(0.37 i + k)."""
    k = next(counter)
    return offset + 0.1 * np.sin(0.37 * np.arange(np.prod(shape)) + k).reshape(shape)


def deconv(x, into, width):
    weight, bias = fill(into, width, 2, 2), fill(width)
    out = np.zeros((width, 2 * x.shape[1], 2 * x.shape[2]))
    for dy, dx in itertools.product((0, 1), repeat=2):
        out[:, dy::2, dx::2] = np.einsum("ihw,io->ohw", x, weight[:, :, dy, dx])
    return out + bias[:, None, None]


def conv3(x, into, width):
    weight = fill(width, into, 3, 3)  # no bias: a norm follows
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((width, *x.shape[1:]))
    for dy, dx in itertools.product(range(3), repeat=2):
        window = padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]]
        out += np.einsum("ihw,oi->ohw", window, weight[:, :, dy, dx])
    return out


def norm_and_activation(x):
    width = len(x)
    scale, shift = fill(width, offset=1.0), fill(width)
    groups = next(g for g in (8, 4, 2, 1) if width % g == 0)
    grouped = x.reshape(groups, -1)
    mean, variance = grouped.mean(1, keepdims=True), grouped.var(1, keepdims=True)
    x = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    x = x * scale[:, None, None] + shift[:, None, None]
    return np.where(x > 0, x, 0.01 * x)


def path(x, width, blocks):
    for _ in range(blocks):
        x = norm_and_activation(conv3(deconv(x, len(x), width), width, width))
    return x


def double(x):
    """Upsample by 2: output centre i lies at input (i + 0.5) / 2 - 0.5, clamped to the edge."""
    for axis in (1, 2):
        size = x.shape[axis]
        at = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, size - 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        share = (at - low).reshape(shape)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def conv_block(x, width):
    for _ in range(2):
        x = norm_and_activation(conv3(x, len(x), width))
    return x


def main():
    """Print the mean of the logits and a slice of them."""
    ramp = np.linspace(-1, 1, EMBED_DIM * GRID * GRID).reshape(EMBED_DIM, GRID, GRID)
    c0, c1, c2, c3, c4 = WIDTHS
    taps = [ramp * (level + 1) for level in range(4)]
    z1, z2, z3 = path(taps[0], c3, 4), path(taps[1], c2, 3), path(taps[2], c1, 2)
    x = path(taps[3], c0, 1)
    for skip in (z3, z2, z1):
        x = conv_block(np.concatenate([double(x), skip]), len(skip))
    x = conv_block(x, c4)
    weight, bias = fill(CLASSES, c4), fill(CLASSES)
    logits = np.einsum("ihw,oi->ohw", x, weight) + bias[:, None, None]
    print("mean", repr(float(logits.mean())))
    print("slice", [round(float(v), 7) for v in logits[1, 5, 3:9]])


if __name__ == "__main__":
    main()

"""MIL's recurrent layers. Tensors are ``(rows, steps, batch, features)``, states ``(rows, batch, hidden)``.

In the direction ``reverse``, the output sequence is in the order of computation, last step first; onnx2coreml, whose
conversions were compared with Core ML itself, turns it around behind the operator. ``bidirectional`` keeps the order of
the input for both halves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from converters.mil.elementwise import sigmoid
from converters.mil.operands import Function, Operands

__all__ = ["RECURRENT"]

State = tuple[np.ndarray, ...]
Step = Callable[[np.ndarray, State], State]  # x of one step times the input weights, state -> state; hidden first

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hard_sigmoid": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "scaled_tanh": lambda x: np.float32(1.7159) * np.tanh(np.float32(2 / 3) * x),
    "sigmoid": sigmoid,
    "sigmoid_hard": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "tanh": np.tanh,
}


def _activation(o: Operands, name: str, default: str) -> Callable[[np.ndarray], np.ndarray]:
    kind = str(o.constant(name, default)).lower()
    if kind not in ACTIVATIONS:
        raise o.refuse(f"the activation {kind} is not evaluated")
    return ACTIVATIONS[kind]


def _unrolled(x: np.ndarray, state: State, step: Step, *, backward: bool) -> tuple[np.ndarray, State]:
    """Hidden states in the order of computation, and the last state."""
    hidden = []
    for index in range(x.shape[1]):
        state = step(x[:, x.shape[1] - 1 - index if backward else index], state)
        hidden.append(state[0])
    return np.stack(hidden, axis=1), state


def _projected(o: Operands, x: np.ndarray, back: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Every step's input times the input weights, plus the bias; and the transposed recurrent weights."""
    weight, recurrent = o.weight(f"weight_ih{back}"), o.weight(f"weight_hh{back}")
    bias = o.weight(f"bias{back}")
    product = x @ np.asarray(weight).T
    return product if bias is None else product + bias, np.asarray(recurrent).T


def _backward(o: Operands) -> bool:
    return str(o.constant("direction", "forward")) == "reverse"


def _last_or_all(o: Operands, sequence: np.ndarray) -> np.ndarray:
    return sequence if o.constant("output_sequence", False) else sequence[:, -1:]


def _lstm_step(o: Operands, recurrent: np.ndarray, peephole: np.ndarray | None) -> Step:
    gate = _activation(o, "recurrent_activation", "sigmoid")
    cell, out = _activation(o, "cell_activation", "tanh"), _activation(o, "activation", "tanh")

    def step(x: np.ndarray, state: State) -> State:
        h, c = state
        i, f, o_, z = np.split(x + h @ recurrent, 4, axis=-1)
        if peephole is None:
            c = gate(f) * c + gate(i) * cell(z)
            return gate(o_) * out(c), c
        to_i, to_f, to_o = np.split(peephole, 3)
        c = gate(f + to_f * c) * c + gate(i + to_i * c) * cell(z)
        return gate(o_ + to_o * c) * out(c), c

    return step


def _lstm(o: Operands) -> tuple[np.ndarray, ...]:
    if o.has("clip"):
        raise o.refuse("a clipped cell is not evaluated")
    x, h, c = o.tensor("x"), o.tensor("initial_h"), o.tensor("initial_c")
    product, recurrent = _projected(o, x)
    step = _lstm_step(o, recurrent, o.weight("peephole"))
    if str(o.constant("direction", "forward")) != "bidirectional":
        sequence, (h, c) = _unrolled(product, (h, c), step, backward=_backward(o))
        return _last_or_all(o, sequence), h, c
    size = h.shape[-1] // 2
    forth, (h_forth, c_forth) = _unrolled(product, (h[..., :size], c[..., :size]), step, backward=False)
    product, recurrent = _projected(o, x, "_back")
    step = _lstm_step(o, recurrent, o.weight("peephole_back"))
    back, (h_back, c_back) = _unrolled(product, (h[..., size:], c[..., size:]), step, backward=True)
    h, c = np.concatenate([h_forth, h_back], axis=-1), np.concatenate([c_forth, c_back], axis=-1)
    if not o.constant("output_sequence", False):
        return h[:, np.newaxis], h, c
    return np.concatenate([forth, np.flip(back, 1)], axis=-1), h, c


def _gru(o: Operands) -> tuple[np.ndarray, ...]:
    if o.has("input_bias") or o.constant("reset_after", False):
        raise o.refuse("a reset behind the product is not evaluated")
    gate, activation = _activation(o, "recurrent_activation", "sigmoid"), _activation(o, "activation", "tanh")
    product, recurrent = _projected(o, o.tensor("x"))

    def step(x: np.ndarray, state: State) -> State:
        (h,) = state
        x_r, x_o, x_z = np.split(x, 3, axis=-1)
        h_r, h_o, h_z = np.split(h @ recurrent, 3, axis=-1)
        z = gate(x_z + h_z)
        return ((1 - z) * activation(x_o + gate(x_r + h_r) * h_o) + z * h,)

    sequence, (h,) = _unrolled(product, (o.tensor("initial_h"),), step, backward=_backward(o))
    return _last_or_all(o, sequence), h


def _rnn(o: Operands) -> tuple[np.ndarray, ...]:
    activation = _activation(o, "activation", "tanh")
    product, recurrent = _projected(o, o.tensor("x"))

    def step(x: np.ndarray, state: State) -> State:
        return (activation(x + state[0] @ recurrent),)

    sequence, (h,) = _unrolled(product, (o.tensor("initial_h"),), step, backward=_backward(o))
    return _last_or_all(o, sequence), h


RECURRENT: dict[str, Function] = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}

//! Functions of one number that stand between layers by themselves; those that a product can end with are its epilogue's.

/// A function of each number: torch's module of the same name with its defaults, where it is not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pointwise {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x, or a share of it where it is negative: 0.01.
    LeakyRelu,
    /// The same with the share 11/48: `RReLU` where nothing is trained.
    RandomRelu,
    /// x, or eˣ − 1 where it is negative; `CELU` is the same.
    Elu,
    /// `Elu` at scales that keep mean and variance.
    Selu,
    /// x · Φ(x), exact.
    Gelu,
    /// x · sigmoid(x).
    Silu,
    /// x · tanh(softplus(x)).
    Mish,
    /// ln(1 + eˣ).
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// ln(sigmoid(x)).
    LogSigmoid,
    /// tanh(x).
    Tanh,
    /// x − tanh(x).
    Tanhshrink,
    /// min(max(x, −1), 1).
    Hardtanh,
    /// min(max(x + 3, 0), 6) / 6.
    Hardsigmoid,
    /// x times that.
    Hardswish,
    /// x, or 0 within ±½.
    Hardshrink,
    /// x moved by ½ towards 0, which it does not pass.
    Softshrink,
}

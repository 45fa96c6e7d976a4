//! What networks compute in.

/// What numbers between layers are, and weights with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// 32-bit float; weights as they are stored.
    F32,
    /// The upper half of an f32, summed in f32; weights rounded to it. What is sensitive stays f32: time embeddings,
    /// statistics of norms, softmax, the residual stream of the text encoder, and everything outside the networks.
    Bf16,
}

impl Precision {
    /// What this machine is quickest in with the kernels that run here.
    pub fn best() -> Self {
        Self::best_and_why().0
    }

    /// The same with the reason; see [`latentd_kernels::bf16_is_quicker`].
    pub fn best_and_why() -> (Self, String) {
        let (bf16, why) = latentd_kernels::bf16_is_quicker();
        (if bf16 { Self::Bf16 } else { Self::F32 }, why)
    }

    /// By its name; `None` is what "auto" leaves to [`Self::best`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16].into_iter().find(|precision| precision.name() == name)
    }

    /// "f32" or "bf16".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

//! Faces restored in what was drawn: by what, which those who take part in drawing have.

/// How faces are restored, before anything else is made of the pictures. Fields have A1111's meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceRestoration {
    /// Its name, as those who take part know it: [`super::Stages::restore`].
    pub restorer: String,
    /// How close it stays to the picture, from 0 to 1, if it is told so: A1111's `code_former_weight`.
    pub weight: Option<f64>,
}

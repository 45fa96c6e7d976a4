//! Small programs over tensors: a list of operations, one after the other, each on what it is given or on what an earlier one made.
//!
//! [`plan`] looks at all of it before anything is computed: shapes, and the memory of its largest moment. [`run`] then computes,
//! on the host in f32. Which part of a sum is added when depends on shapes alone, so that any number of threads makes the same
//! bytes. Each operation says whose definition it has; `tests/tensor_ops` holds it against that.

mod layout;
mod op;
mod plan;
mod pointwise;
mod reduce;
mod resize;
mod room;
mod run;
mod shape;
mod spatial;

pub use op::{Border, Op, Operand, Reduction, Resampling, Step};
pub use plan::{MOST_OPS, Plan, plan};
pub use room::Failed;
pub use run::run;
pub use shape::{Pixels, Shape, Value, Wrong};

//! Latents at other sizes against torch: `tests/fixtures/resize_latents.py`.

use latentd_models::image::{LatentFilter, resize_latents};

use crate::golden::{Golden, relative_error, values};

/// Both are f32 sums of up to a dozen products, in another order: 1e-6. What is picked is the same bits.
#[test]
fn latents_become_what_torch_makes_of_them() {
    let golden = Golden::open("resize_latents");
    let (mut compared, mut worst) = (0, 0f64);
    for key in golden.names().filter(|key| key.contains('.')) {
        let [from, filter, to] = key.split('.').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let named = |each: &&LatentFilter| format!("{each:?}") == filter;
        let filter = LatentFilter::ALL.iter().find(named).expect("a filter");
        let (rows, columns) = to.split_once('x').expect("a size");
        let (rows, columns) = (rows.parse().expect("a number"), columns.parse().expect("a number"));
        let made = resize_latents(golden.get(from), rows, columns, *filter).expect("fits");
        let wanted = golden.get(key);
        assert_eq!(made.dims(), wanted.dims(), "{key}");
        if matches!(filter, LatentFilter::Nearest | LatentFilter::NearestExact) {
            assert_eq!(&made, wanted, "{key}");
        }
        let error = relative_error(&values(&made), &values(wanted));
        assert!(error < 1e-6, "{key}: {error:.2e}");
        worst = worst.max(error);
        compared += 1;
    }
    println!("{compared} sizes, at worst {worst:.2e}");
    assert_eq!(compared, 66);
}

//! Embeddings in every file that carries one, against the vectors that were written there, and a picture with one
//! (`tests/fixtures/adapters`).

use std::path::Path;
use std::sync::Arc;

use latentd_models::adapters::{Embedding, embedding_of_picture};
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::pipeline::Txt2Img;
use latentd_models::prompt::Embeddings;
use latentd_models::{Result, files};
use serde::Deserialize;
use serde_json::Value;

use crate::drawing::{is_the_references, request};
use crate::golden::{checkpoint, fixture};

/// Numbers of each vector of the tiny checkpoint's text encoder.
const WIDTH: usize = 32;

#[derive(Deserialize)]
struct Case {
    file: String,
    /// A picture's own name.
    name_inside: Option<String>,
    vectors: Option<Vec<Vec<f32>>>,
    /// Why it has none.
    none: Option<String>,
    /// For which other model it is.
    other: Option<String>,
    #[serde(default)]
    broken: bool,
    #[serde(default)]
    why: String,
}

/// The embedding of a file, with the name that a picture has for it.
fn read(path: &Path) -> Result<Option<(Option<String>, Embedding)>> {
    if path.extension().is_some_and(|extension| extension == "png" || extension == "webp") {
        let bytes = std::fs::read(path).expect("a file");
        return Ok(embedding_of_picture(path, &bytes)?.map(|found| (found.name, found.embedding)));
    }
    Ok(Some((None, Embedding::of(&files::open(path)?)?)))
}

#[test]
fn every_file_gives_the_vectors_that_were_written() {
    let text = std::fs::read_to_string(fixture("adapters/embeddings.json")).expect("cases");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("cases");
    assert!(cases.len() > 25);
    for Case { file, name_inside, vectors, none, other, broken, why } in cases {
        let found = read(&fixture(&format!("adapters/{file}")));
        if broken {
            let error = found.expect_err(&why).to_string();
            assert!(error.contains(&file), "{error}");
            continue;
        }
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        if let Some(none) = none {
            // A preview is passed by for its name.
            assert!(found.is_none() || file.contains(".preview."), "{file}: {none}");
            continue;
        }
        let (name, embedding) = found.unwrap_or_else(|| panic!("{file} carries one"));
        let misfit = embedding.misfit(WIDTH);
        assert_eq!(misfit.is_some(), other.is_some(), "{file}: {misfit:?}, {other:?}");
        if let Some(vectors) = vectors {
            let found: Vec<Vec<f32>> = embedding.vectors().iter().map(|vector| vector.to_vec()).collect();
            assert_eq!(found, vectors, "{file}");
        }
        if let Some(name) = name {
            assert_eq!(Some(name), name_inside, "{file}");
        }
    }
}

#[test]
fn a_picture_with_an_embedding_is_the_references() {
    let text = std::fs::read_to_string(fixture("adapters/pictures.json")).expect("pictures");
    let entries: Vec<Value> = serde_json::from_str(&text).expect("pictures");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let mut drawn = 0;
    for entry in &entries {
        let Some(names) = entry["embeddings"].as_array() else { continue };
        let named = names.iter().map(|file| {
            let path = fixture(&format!("adapters/{}", file.as_str().expect("a name")));
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, Arc::new(Embedding::of(&files::open(&path).expect("opens")).expect("an embedding")))
        });
        let embeddings = Arc::new(Embeddings::new(named).expect("named"));
        let request = Txt2Img { embeddings, ..request(entry) };
        is_the_references(&model, &mut &model, &request, entry);
        drawn += 1;
    }
    assert!(drawn > 0);
}

//! What people find under the name of a weight file that is none: what a site sent instead, or a file of another format.

/// Bytes from the beginning that are looked at.
const LOOKED_AT: usize = 1024;

/// Characters of a text that are shown.
const SHOWN: usize = 80;

/// First bytes of other formats, what they are, and what to do.
const FORMATS: [(&[u8], &str); 14] = [
    (b"\x1f\x8b", "is a gzip archive with another name; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive with another name; unpack it"),
    (b"Rar!", "is a RAR archive with another name; unpack it"),
    (b"\xfd7zXZ", "is an xz archive with another name; unpack it"),
    (b"\x28\xb5\x2f\xfd", "is a zstd archive with another name; unpack it"),
    (b"BZh", "is a bzip2 archive with another name; unpack it"),
    (
        b"tjgg",
        "is a GGML file, as there were before GGUF; convert the model again, or use a .safetensors file of it",
    ),
    (
        b"\x89HDF",
        "is an HDF5 file with another name, as Keras writes it; use a .safetensors file of the model",
    ),
    (b"\x08\x00\x00\x00pytorch", "is an ONNX file with another name; use a .safetensors file of the model"),
    (b"\x89PNG", "is a PNG picture with another name; download the model itself"),
    (b"\xff\xd8\xff", "is a JPEG picture with another name; download the model itself"),
    (b"RIFF", "is a WebP picture with another name; download the model itself"),
    (b"%PDF", "is a PDF with another name; download the model itself"),
    (b"\x7fELF", "is a program with another name; download the model itself"),
];

const PICKLE: &str = "is a bare pickle, which has no tensors as PyTorch keeps them; it was not read: use a file that torch.save wrote, or \
     a .safetensors file of the model";

const ZIP: &str = "is a zip archive with another name and no PyTorch file; if it is an archive of files, unpack it, or use a \
     .safetensors file of the model";

/// What a file is that is no weight file, and what to do, if that can be told by its first bytes.
pub(super) fn for_weights(bytes: &[u8]) -> Option<String> {
    let head = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    if head.is_empty() {
        return Some("is empty; copy or download it again".to_owned());
    }
    if head.starts_with(b"PK\x03\x04") {
        return Some(ZIP.to_owned());
    }
    if let [0x80, 0..=5, ..] = head {
        return Some(PICKLE.to_owned());
    }
    if let Some((_, text)) = FORMATS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some((*text).to_owned());
    }
    if head.len() >= 64 && head.iter().all(|byte| *byte == 0) {
        return Some(
            "begins with nothing but zeros: a download that did not finish; download it again".to_owned(),
        );
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = String::from_utf8_lossy(head);
    let text = text.trim();
    of_pointer(text).or_else(|| of_page(text)).or_else(|| of_text(head, text))
}

fn begins(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn of_pointer(text: &str) -> Option<String> {
    let reason = if begins(text, "version https://git-lfs") || begins(text, "version https://hawser") {
        "is a Git LFS pointer, which stands for the weights but does not have them; run `git lfs pull` where it came \
         from, or download the file itself"
    } else if begins(text, "/annex/objects/") {
        "is a git-annex pointer, which stands for the weights but does not have them; run `git annex get` where it \
         came from"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

fn of_page(text: &str) -> Option<String> {
    let is_page =
        ["<!doctype", "<html", "<head", "<body", "<?xml", "<!--"].iter().any(|start| begins(text, start));
    is_page.then(|| {
        let shown = shown(text);
        format!(
            "is a web page, not weights: what a site showed instead of the file ({shown}); download the file itself, \
             logged in if the site wants that"
        )
    })
}

/// Of what is nothing but text.
fn of_text(head: &[u8], text: &str) -> Option<String> {
    let is_text = |letter: char| !letter.is_control() || letter.is_whitespace();
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character that was cut in two by the look itself.
        Err(error) => error.error_len().is_none(),
    };
    if !is_utf8 || text.is_empty() || !text.chars().all(is_text) {
        return None;
    }
    let shown = shown(text);
    Some(if begins(text, "{") || begins(text, "[") {
        format!(
            "is JSON, not weights: what a site answered instead of the file ({shown}); download the file itself, with \
             the site's key if it wants one"
        )
    } else {
        format!("is a text, not weights ({shown}); download the file itself")
    })
}

/// Its beginning, on one line.
fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_what_it_is() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2132625894\n";
        let rows: [(&[u8], &str); 17] = [
            (b"", "is empty"),
            (pointer.as_bytes(), "git lfs pull"),
            (b"/annex/objects/SHA256E-s3--00.safetensors\n", "git annex get"),
            (b"<!DOCTYPE html>\n<html><head>", "is a web page"),
            (b"\xef\xbb\xbf\r\n  <HTML>", "is a web page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
            (b"<html>\x1b[2J\xff\x00", "is a web page"),
            (b"{\"error\": \"Unauthorized\"}", "is JSON"),
            (b"[]", "is JSON"),
            (b"Entry not found", "is a text, not weights (Entry not found)"),
            ("Zugriff verweigert für Gäste\n".as_bytes(), "für Gäste"),
            (b"PK\x03\x04\x14\x00\x00\x00model.safetensors", "is a zip archive"),
            (b"\x80\x02}q\x00.", "is a bare pickle"),
            (b"\x1f\x8b\x08\x00", "is a gzip archive"),
            (b"tjgg\x03\x00\x00\x00", "is a GGML file"),
            (&[0; 4096], "nothing but zeros"),
            (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
        ];
        for (bytes, expected) in rows {
            let found = for_weights(bytes).unwrap_or_default();
            assert!(found.contains(expected), "{expected}: {found}");
            assert!(found.contains(';'), "and what to do: {found}");
        }
        for bytes in [&b"\x10\x00\x00\x00\x00\x00\x00\x00{}"[..], b"\x01\x02\x03", &[0xff; 100]] {
            assert_eq!(for_weights(bytes), None, "{bytes:?}");
        }
        let cut = format!("{}ä", "x".repeat(LOOKED_AT - 1));
        assert!(for_weights(cut.as_bytes()).is_some_and(|text| text.len() < 300));
        assert!(for_weights(b"bad\x1b[31m").is_none(), "control characters are no text");
    }
}

//! The codec against hostile and unluckily cut bytes.

use latentd_client::codec::{CodecError, Decoder, Limits, Message, encode_request};
use proptest::prelude::*;
use rmpv::Value;

fn decode(limits: Limits, bytes: &[u8]) -> Result<Vec<Value>, CodecError> {
    let mut decoder = Decoder::new(limits);
    decoder.feed(bytes);
    drain(&mut decoder)
}

fn drain(decoder: &mut Decoder) -> Result<Vec<Value>, CodecError> {
    std::iter::from_fn(|| decoder.next_value().transpose()).collect()
}

#[test]
fn claims_are_refused_before_their_bytes_come() {
    let limits = Limits { bytes: 1 << 20, elements: 1000, depth: 4 };
    let rows: &[(&[u8], &str)] = &[
        (&[0xc6, 0xff, 0xff, 0xff, 0xff], "needs at least 4294967300 bytes"),
        (&[0xdb, 0xff, 0xff, 0xff, 0xff], "needs at least 4294967300 bytes"),
        (&[0xc9, 0xff, 0xff, 0xff, 0xff], "needs at least 4294967301 bytes"),
        (&[0xdd, 0xff, 0xff, 0xff, 0xff], "has at least 4294967296 values"),
        (&[0xdf, 0xff, 0xff, 0xff, 0xff], "has at least 8589934591 values"),
        (&[0x91, 0x91, 0x91, 0x91, 0x91], "nested deeper than 4"),
        (&[0x92, 0x01, 0xc1], "byte 0xc1 at offset 2"),
    ];
    for (bytes, expected) in rows {
        let error = decode(limits, bytes).expect_err("refused").to_string();
        assert!(error.contains(expected), "{bytes:x?}: {error}");
    }
}

#[test]
fn deep_nesting_takes_no_stack() {
    let bytes = vec![0x91; 100_000];
    assert_eq!(decode(Limits::default(), &bytes), Err(CodecError::TooDeep { limit: 64 }));
}

#[test]
fn depth_of_exactly_the_limit_is_read() {
    let mut bytes = vec![0x91; 64];
    bytes.push(0x01);
    assert_eq!(decode(Limits::default(), &bytes).map(|values| values.len()), Ok(1));
}

#[test]
fn truncated_messages_ask_for_more() {
    let bytes = encode_request(7, "txt2img", &[("prompt", "a cat")]).expect("encodes");
    for length in 0..bytes.len() {
        assert_eq!(decode(Limits::default(), &bytes[..length]), Ok(vec![]), "{length} bytes");
    }
}

#[test]
fn messages_are_told_from_other_values() {
    let text = |text: &str| Value::from(text);
    let request =
        Value::Array(vec![0.into(), 1.into(), Value::Binary(b"ping".to_vec()), Value::Array(vec![])]);
    assert_eq!(
        Message::from_value(request),
        Ok(Message::Request { id: 1, method: "ping".into(), params: Value::Array(vec![]) })
    );
    let rows = [
        (Value::Nil, None),
        (Value::Array(vec![]), None),
        (Value::Array(vec![0.into(), 5.into(), text("ping")]), Some(5)),
        (Value::Array(vec![0.into(), 5.into(), Value::Nil, Value::Nil]), Some(5)),
        (Value::Array(vec![0.into(), (-5).into(), text("ping"), Value::Nil]), None),
        (Value::Array(vec![2.into(), text("ping")]), None),
        (Value::Array(vec![9.into(), text("ping"), Value::Nil]), None),
    ];
    for (value, id) in rows {
        let error = Message::from_value(value.clone()).expect_err("refused");
        assert_eq!(error.id, id, "{value}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("compares", |number| !number.is_nan()).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
        (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(tag, data)| Value::Ext(tag, data)),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_values(values in prop::collection::vec(any_value(), 1..5), step in 1usize..40) {
        let mut bytes = Vec::new();
        for value in &values {
            rmpv::encode::write_value(&mut bytes, value).expect("encodes");
        }
        let mut decoder = Decoder::new(Limits::default());
        let mut decoded = Vec::new();
        for part in bytes.chunks(step) {
            decoder.feed(part);
            decoded.extend(drain(&mut decoder).expect("valid"));
        }
        prop_assert_eq!(decoded, values);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let limits = Limits { bytes: 1500, elements: 200, depth: 8 };
        if let Ok(values) = decode(limits, &bytes) {
            for value in values {
                // Whether it is a message does not matter; that asking is safe does.
                drop(Message::from_value(value));
            }
        }
    }
}

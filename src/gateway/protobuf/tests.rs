#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::table::{Form, Kind, Message, Table};
use super::wire::MAX_DEPTH;
use super::wire::{Reader, Wire};
use super::{CONTENT_TYPE, MAGIC, decode, decode_by};

/// Objects as Go's encoding/json writes them, and as apimachinery's protobuf serializer does.
fn fixture() -> Vec<(Value, Vec<u8>)> {
    let lines = include_str!("../../../tests/gateway/protobuf.jsonl").lines();
    lines
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let body = STANDARD.decode(line["protobuf"].as_str().unwrap()).unwrap();
            (line["json"].take(), body)
        })
        .collect()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn body(version: &str, kind: &str, object: impl AsRef<[u8]>) -> Vec<u8> {
    let type_meta = [bytes(1, version), bytes(2, kind)].concat();
    [MAGIC.to_vec(), bytes(1, type_meta), bytes(2, object), bytes(3, ""), bytes(4, "")].concat()
}

/// The fault of an object, without the words around.
fn fault(kind: &str, object: impl AsRef<[u8]>) -> String {
    let version = if kind == "PodDisruptionBudget" { "policy/v1" } else { "v1" };
    let error = decode(&body(version, kind, object)).unwrap_err();
    let inner = error.strip_prefix("the gateway can't decode the protobuf body: ").unwrap();
    inner.strip_suffix(". Instead, send JSON").unwrap().to_owned()
}

/// A ConfigMap (2: data, 3: binaryData, 4: immutable) with these bytes after its name.
fn config_map(rest: impl AsRef<[u8]>) -> Vec<u8> {
    [bytes(1, bytes(1, "settings")), rest.as_ref().to_vec()].concat()
}

/// True if `actual` has all of Go's JSON but empty structs, empty slices and zero times. Protobuf has no empty slices.
fn same(expected: &Value, actual: &Value) -> bool {
    fn is_nothing(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.values().all(is_nothing),
            Value::Array(values) => values.is_empty(),
            _ => value.is_null(),
        }
    }
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            actual.keys().all(|key| expected.contains_key(key))
                && expected.iter().all(|(key, value)| match actual.get(key) {
                    Some(actual) => same(value, actual),
                    None => is_nothing(value),
                })
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| same(e, a))
        }
        _ => expected == actual,
    }
}

#[test]
fn every_object_is_the_json_that_go_writes() {
    for (expected, body) in fixture() {
        let actual = decode(&body).unwrap();
        assert!(same(&expected, &actual), "Go: {expected:#}\nringfence: {actual:#}");
    }
}

/// The fields that `bytes` has, as pairs of the message's index and the field's number.
fn walk(table: &Table, message: usize, bytes: &[u8], seen: &mut BTreeSet<(usize, u64)>) {
    let Message::Fields(fields) = &table.messages[message] else { return };
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key().unwrap() {
        let field = &fields[&number];
        if wire == Wire::Varint {
            // gogo writes a zero, too: a zero shows nothing.
            if reader.varint().unwrap() != 0 {
                seen.insert((message, number));
            }
            continue;
        }
        let mut value = reader.bytes().unwrap();
        if !value.is_empty() {
            seen.insert((message, number));
        }
        if field.form == Form::Map {
            let mut entry = Reader::new(value);
            entry.key().unwrap();
            entry.bytes().unwrap();
            entry.key().unwrap();
            value = entry.bytes().unwrap();
        }
        if let Kind::Message(inner) = field.kind {
            walk(table, inner, value, seen);
        }
    }
}

#[test]
fn every_field_of_every_message_is_in_the_fixture() {
    let table = Table::built_in().unwrap();
    let mut seen = BTreeSet::new();
    for (object, body) in fixture() {
        let root = table.root(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
        let mut envelope = Reader::new(&body[MAGIC.len()..]);
        envelope.key().unwrap();
        envelope.bytes().unwrap();
        envelope.key().unwrap();
        walk(table, root, envelope.bytes().unwrap(), &mut seen);
    }
    let mut missing = Vec::new();
    for (name, index) in &table.names {
        let Message::Fields(fields) = &table.messages[*index] else { continue };
        let numbers = fields.keys().filter(|number| !seen.contains(&(*index, **number)));
        missing.extend(numbers.map(|number| format!("{name} {number}")));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_table_has_every_kind_that_clients_send_as_protobuf() {
    let kinds = [
        (
            "v1",
            "Pod ConfigMap Secret Service PersistentVolumeClaim ReplicationController Event ServiceAccount Namespace \
             LimitRange ResourceQuota DeleteOptions",
        ),
        ("apps/v1", "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision DeleteOptions"),
        ("batch/v1", "Job CronJob DeleteOptions"),
        ("autoscaling/v1", "HorizontalPodAutoscaler Scale DeleteOptions"),
        ("autoscaling/v2", "HorizontalPodAutoscaler DeleteOptions"),
        ("policy/v1", "PodDisruptionBudget Eviction DeleteOptions"),
        ("networking.k8s.io/v1", "Ingress NetworkPolicy DeleteOptions"),
        ("meta.k8s.io/v1", "DeleteOptions"),
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview SelfSubjectRulesReview"),
        ("authentication.k8s.io/v1", "SelfSubjectReview"),
        ("coordination.k8s.io/v1", "Lease DeleteOptions"),
        ("rbac.authorization.k8s.io/v1", "Role RoleBinding DeleteOptions"),
    ];
    for (version, names) in kinds {
        for kind in names.split_whitespace() {
            let expected = json!({"apiVersion": version, "kind": kind});
            assert_eq!(decode(&body(version, kind, "")), Ok(expected));
        }
    }
}

#[test]
fn no_two_fields_of_a_message_have_one_name() {
    fn names(table: &Table, message: usize) -> Vec<&'static str> {
        let Message::Fields(fields) = &table.messages[message] else { return Vec::new() };
        let inline = |kind| if let Kind::Message(inner) = kind { names(table, inner) } else { Vec::new() };
        fields.values().flat_map(|f| f.name.map_or_else(|| inline(f.kind), |name| vec![name])).collect()
    }
    let table = Table::built_in().unwrap();
    for (message, index) in &table.names {
        let names = names(table, *index);
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{message}: {names:?}");
    }
}

#[test]
fn a_table_that_cannot_be_read_is_an_error() {
    for text in [
        "message a\n  1 x unknown",
        "message a\n  x x string",
        "  1 x string",
        "message a\n  1 x string\n  1 y string",
        "message a\nmessage a",
        "message a\n  1 . string",
        "message a\n  1 . *a",
        "message a\n  1 x map[string]bool",
        "list a int32",
        "kind v1 A a",
        "message a b c d",
    ] {
        assert!(Table::parse(text).is_err(), "{text}");
    }
}

#[test]
fn presence_is_kept_for_pointers_only() {
    // Pod.spec is 2. PodSpec: 2 containers, 4 terminationGracePeriodSeconds, 6 dnsPolicy, 11 hostNetwork,
    // 21 automountServiceAccountToken, 14 securityContext, 38 enableServiceLinks.
    let spec = [number(4, 0), bytes(6, ""), number(11, 0), number(21, 0), bytes(14, "")];
    let pod = [bytes(1, bytes(1, "")), bytes(2, spec.concat()), bytes(3, "")].concat();
    let expected = json!({
        "apiVersion": "v1", "kind": "Pod",
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "securityContext": {}},
    });
    assert_eq!(decode(&body("v1", "Pod", pod)), Ok(expected));
    // A container's resources are no pointer. Its name has no omitempty.
    let spec = bytes(2, [bytes(1, ""), bytes(2, ""), bytes(8, "")].concat());
    let expected = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": ""}]}});
    assert_eq!(decode(&body("v1", "Pod", bytes(2, spec))), Ok(expected));
}

#[test]
fn elements_and_map_values_are_kept_when_they_are_empty() {
    let data = [bytes(2, bytes(1, "a")), bytes(2, bytes(2, "b")), bytes(3, bytes(1, "c"))].concat();
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings"}, "data": {"a": "", "": "b"}, "binaryData": {"c": ""},
    });
    assert_eq!(decode(&body("v1", "ConfigMap", config_map(data))), Ok(expected));
}

#[test]
fn lists_of_numbers_may_be_packed() {
    // PodSpec.securityContext is 14, supplementalGroups of it 4.
    let groups = [number(4, 7), bytes(4, [varint(300), varint(u64::MAX)].concat()), bytes(4, "")].concat();
    let pod = decode(&body("v1", "Pod", bytes(2, bytes(14, groups)))).unwrap();
    assert_eq!(pod["spec"]["securityContext"], json!({"supplementalGroups": [7, 300, -1]}));
    let pod = decode(&body("v1", "Pod", bytes(2, bytes(14, bytes(4, ""))))).unwrap();
    assert_eq!(pod["spec"]["securityContext"], json!({}));
    assert_eq!(
        fault("Pod", bytes(2, bytes(14, bytes(4, [0x80])))),
        "spec.securityContext.supplementalGroups: the body ends within a number"
    );
}

#[test]
fn a_cut_off_body_is_refused() {
    for (_, body) in fixture() {
        let whole = decode(&body);
        for end in 0..body.len() {
            let cut = decode(&body[..end]);
            // The last fields of the envelope are empty, and may be absent.
            assert!(cut.is_err() || cut == whole, "{end}: {cut:?}");
        }
    }
}

#[test]
fn a_changed_bit_never_panics_and_never_inflates_the_output() {
    for (_, body) in fixture() {
        // The largest bodies have 10 kB, and repeat themselves.
        for at in (0..body.len()).step_by(1 + body.len() / 400) {
            let mut changed = body.clone();
            changed[at] ^= 1 << (at % 8);
            if let Ok(value) = decode(&changed) {
                assert!(value.to_string().len() <= 64 * body.len(), "{at}: {value}");
            }
        }
    }
}

#[test]
fn the_output_is_bounded_by_the_input() {
    let containers = bytes(2, "").repeat(10_000);
    let input = body("v1", "Pod", bytes(2, containers));
    assert!(decode(&input).unwrap().to_string().len() <= 2 * input.len());
    let control = body("v1", "ConfigMap", bytes(2, bytes(2, "\u{1}".repeat(10_000))));
    assert!(decode(&control).unwrap().to_string().len() <= 7 * control.len());
    let kind = decode(&body("v1", &"\u{1}".repeat(10_000), "")).unwrap_err();
    assert!(kind.len() < 1000, "{kind}");
}

#[test]
fn a_field_that_the_table_does_not_have_is_refused() {
    let unknown = |number: u64| format!("field {number} is a field that this version of ringfence doesn't know");
    assert_eq!(fault("ConfigMap", config_map(number(99, 1))), unknown(99));
    assert_eq!(fault("ConfigMap", config_map(bytes(5, ""))), unknown(5));
    // Go takes the lower 32 bits of a number: 2 to the power of 32, plus 4, is the field 4 for Go.
    assert_eq!(fault("ConfigMap", config_map(number((1 << 32) + 4, 1))), unknown((1 << 32) + 4));
    assert_eq!(fault("ConfigMap", config_map(number(0, 1))), unknown(0));
    assert_eq!(fault("ConfigMap", bytes(1, bytes(200, "x"))), format!("metadata: {}", unknown(200)));
    assert_eq!(fault("ConfigMap", bytes(2, bytes(3, "x"))), format!("data: {}", unknown(3)));
    assert_eq!(fault("Pod", bytes(2, bytes(1, bytes(2, bytes(99, ""))))), format!("spec.volumes: {}", unknown(99)));
    let quantity = [bytes(1, "cpu"), bytes(2, bytes(2, "1"))].concat();
    assert_eq!(fault("ResourceQuota", bytes(2, bytes(1, quantity))), format!("spec.hard: {}", unknown(2)));
    let mut envelope = body("v1", "ConfigMap", "");
    envelope.extend(bytes(5, "x"));
    assert!(decode(&envelope).unwrap_err().contains(&unknown(5)));
}

#[test]
fn a_field_that_occurs_twice_is_refused() {
    let twice = |number| format!("field {number} occurs twice");
    assert_eq!(fault("ConfigMap", config_map(bytes(1, ""))), twice(1));
    assert_eq!(fault("ConfigMap", [number(4, 0), number(4, 1)].concat()), twice(4));
    assert_eq!(
        fault("ConfigMap", bytes(1, [bytes(1, "a"), bytes(1, "a")].concat())),
        format!("metadata: {}", twice(1))
    );
    // Volume.volumeSource is inline.
    assert_eq!(
        fault("Pod", bytes(2, bytes(1, [bytes(2, ""), bytes(2, "")].concat()))),
        format!("spec.volumes: {}", twice(2))
    );
    assert_eq!(
        fault("ConfigMap", bytes(2, [bytes(1, "a"), bytes(2, "b"), bytes(2, "c")].concat())),
        format!("data: {}", twice(2))
    );
    let entry = bytes(2, [bytes(1, "a"), bytes(2, "b")].concat());
    assert_eq!(fault("ConfigMap", entry.repeat(2)), "data: a key occurs twice");
    let mut envelope = body("v1", "ConfigMap", "");
    envelope.extend(bytes(2, bytes(2, bytes(1, "hidden"))));
    assert!(decode(&envelope).unwrap_err().contains(&twice(2)));
}

#[test]
fn a_wrong_wire_type_is_refused() {
    let wrong = |number| format!("field {number} has the wrong wire type");
    assert_eq!(fault("ConfigMap", number(1, 0)), format!("metadata: {}", wrong(1)));
    assert_eq!(fault("ConfigMap", number(2, 0)), format!("data: {}", wrong(2)));
    assert_eq!(fault("ConfigMap", bytes(4, [1])), format!("immutable: {}", wrong(4)));
    assert_eq!(fault("ConfigMap", bytes(2, number(1, 0))), format!("data: {}", wrong(1)));
    assert_eq!(fault("Pod", bytes(2, bytes(1, number(2, 0)))), format!("spec.volumes: {}", wrong(2)));
    for wire in [1, 3, 4, 5, 6, 7] {
        assert_eq!(fault("ConfigMap", [varint(4 << 3 | wire), vec![0; 16]].concat()), wrong(4));
    }
}

#[test]
fn a_number_that_go_would_cut_is_refused() {
    let long = "a number has more than 64 bits";
    assert_eq!(fault("ConfigMap", [varint(4 << 3), vec![0x80; 10], vec![0]].concat()), long);
    assert_eq!(fault("ConfigMap", [varint(4 << 3), vec![0x81; 9], vec![2]].concat()), long);
    assert_eq!(fault("ConfigMap", [0xff; 11]), long);
    assert_eq!(fault("ConfigMap", number(4, 2)), "immutable: a boolean is neither 0 nor 1");
    // PodSpec.priority is an int32: 25.
    let priority = |value| bytes(2, number(25, value));
    let pod = decode(&body("v1", "Pod", priority(i64::from(i32::MIN).cast_unsigned()))).unwrap();
    assert_eq!(pod["spec"]["priority"], json!(i32::MIN));
    for value in [1 << 31, 1 << 32, u64::from(u32::MAX), u64::MAX >> 1] {
        assert_eq!(fault("Pod", priority(value)), "spec.priority: a number has more than 32 bits");
    }
}

#[test]
fn a_length_past_the_end_is_refused() {
    for length in [4, 1 << 31, 1 << 32, u64::MAX >> 1, u64::MAX] {
        let object = [varint(1 << 3 | 2), varint(length), b"abc".to_vec()].concat();
        assert_eq!(fault("ConfigMap", &object), "a length points past the end");
        let envelope = [MAGIC.to_vec(), varint(2 << 3 | 2), varint(length), b"abc".to_vec()].concat();
        assert!(decode(&envelope).unwrap_err().contains("a length points past the end"));
    }
}

#[test]
fn nesting_is_limited() {
    let table =
        Table::parse("kind v1 A a\nmessage a\n  1 a? *a\n  2 . a\n  3 list []a\n  4 map map[string]a\n").unwrap();
    let nest = |levels: usize, inner: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let object = (0..levels).fold(Vec::new(), |object, _| inner(object));
        decode_by(&table, &body("v1", "A", object))
    };
    let limit = "messages are nested deeper than 64";
    for field in [1, 2, 3] {
        assert!(nest(MAX_DEPTH - 1, &|object| bytes(field, object)).is_ok());
        for levels in [MAX_DEPTH, 5_000] {
            assert!(nest(levels, &|object| bytes(field, object)).unwrap_err().contains(limit));
        }
    }
    assert!(nest(5_000, &|object| bytes(4, bytes(2, object))).unwrap_err().contains(limit));
    // ControllerRevision.data is 2, and has JSON in its field 1.
    let deep = body("apps/v1", "ControllerRevision", bytes(2, bytes(1, "[".repeat(100_000))));
    assert!(decode(&deep).unwrap_err().contains("data: this isn't JSON: nested too deep"));
}

#[test]
fn text_is_utf8() {
    assert_eq!(fault("ConfigMap", bytes(1, bytes(1, [0xff]))), "metadata.name: a string isn't UTF-8");
    assert_eq!(fault("ConfigMap", bytes(2, bytes(1, [0xc3]))), "data: a string isn't UTF-8");
    assert_eq!(fault("ConfigMap", bytes(2, bytes(2, [0xed, 0xa0, 0x80]))), "data: a string isn't UTF-8");
}

#[test]
fn json_within_protobuf_has_no_key_twice() {
    let revision = |data: &str| decode(&body("apps/v1", "ControllerRevision", bytes(2, bytes(1, data))));
    assert_eq!(revision(r#"{"a":[1,{"b":null}]}"#).unwrap()["data"], json!({"a": [1, {"b": null}]}));
    for data in [r#"{"a":1,"a":2}"#, r#"[{"a":1,"\u0061":2}]"#] {
        assert!(revision(data).unwrap_err().contains("data: this isn't JSON: a member stands twice"));
    }
    for data in ["", "{} {}", "k8s\0", "{\"a\":1e999}"] {
        assert!(revision(data).unwrap_err().contains("data: this isn't JSON"), "{data}");
    }
    let empty = decode(&body("apps/v1", "ControllerRevision", bytes(2, ""))).unwrap();
    assert_eq!(empty, json!({"apiVersion": "apps/v1", "kind": "ControllerRevision"}));
}

#[test]
fn a_number_or_string_has_one_value() {
    // PodDisruptionBudget.spec.minAvailable.
    let budget = |value: Vec<u8>| bytes(2, bytes(1, value));
    let decoded = |value| decode(&body("policy/v1", "PodDisruptionBudget", budget(value))).unwrap();
    let min = |value| decoded(value)["spec"]["minAvailable"].clone();
    assert_eq!(min([number(1, 0), number(2, u64::MAX), bytes(3, "")].concat()), json!(-1));
    assert_eq!(min([number(1, 1), number(2, 0), bytes(3, "50%")].concat()), json!("50%"));
    assert_eq!(min(Vec::new()), json!(0));
    let refused = |value| fault("PodDisruptionBudget", budget(value));
    let both = "spec.minAvailable: a value is both a number and a string";
    assert_eq!(refused([number(1, 0), number(2, 1), bytes(3, "50%")].concat()), both);
    assert_eq!(refused([number(1, 1), number(2, 1), bytes(3, "50%")].concat()), both);
    assert_eq!(refused(number(1, 2)), "spec.minAvailable: a value is neither a number nor a string");
    assert_eq!(refused(number(2, 1 << 40)), "spec.minAvailable: a number has more than 32 bits");
}

#[test]
fn a_quantity_is_text_that_an_api_server_reads_as_it_stands() {
    let quota = |value: Vec<u8>| bytes(2, bytes(1, [bytes(1, "cpu"), bytes(2, value)].concat()));
    let decoded = |value| decode(&body("v1", "ResourceQuota", quota(value))).unwrap();
    assert_eq!(decoded(bytes(1, "-1.5e+3"))["spec"]["hard"], json!({"cpu": "-1.5e+3"}));
    assert_eq!(decoded(Vec::new())["spec"]["hard"], json!({"cpu": "0"}));
    for text in ["", " 1", "1\n", "1\u{a0}", "\"1\""] {
        assert_eq!(fault("ResourceQuota", quota(bytes(1, text))), "spec.hard: a quantity is no number with a suffix");
    }
}

#[test]
fn times_are_those_that_go_reads() {
    // ObjectMeta.creationTimestamp is 8.
    let meta = |seconds: i64, nanos: u64| {
        let time = [number(1, seconds.cast_unsigned()), number(2, nanos)].concat();
        bytes(1, bytes(8, time))
    };
    let decoded = |seconds, nanos| decode(&body("v1", "ConfigMap", meta(seconds, nanos))).unwrap();
    let created = |seconds, nanos| decoded(seconds, nanos)["metadata"]["creationTimestamp"].clone();
    assert_eq!(created(0, 0), json!("1970-01-01T00:00:00Z"));
    assert_eq!(created(-1, 999_999_999), json!("1969-12-31T23:59:59Z"));
    assert_eq!(created(-62_135_596_799, 0), json!("0001-01-01T00:00:01Z"));
    assert_eq!(decoded(-62_135_596_800, 1), json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    for (seconds, nanos) in
        [(-62_135_596_801, 0), (253_402_300_800, 0), (i64::MIN, 0), (0, 1_000_000_000), (0, u64::MAX)]
    {
        let reason = "metadata.creationTimestamp: a time isn't between the years 1 and 9999";
        assert_eq!(fault("ConfigMap", meta(seconds, nanos)), reason);
    }
}

#[test]
fn an_envelope_of_another_form_is_refused() {
    let type_meta = bytes(1, [bytes(1, "v1"), bytes(2, "ConfigMap")].concat());
    let envelope = |parts: &[Vec<u8>]| decode(&[MAGIC.to_vec(), type_meta.clone(), parts.concat()].concat());
    assert!(envelope(&[bytes(2, ""), bytes(4, CONTENT_TYPE)]).is_ok());
    for (parts, reason) in [
        (&[bytes(2, ""), bytes(3, "gzip")][..], "the envelope has a content encoding"),
        (&[bytes(2, ""), bytes(4, "application/json")], "the envelope has a content type other than protobuf"),
        (&[], "the envelope has no object"),
    ] {
        assert!(envelope(parts).unwrap_err().contains(reason));
    }
    for body in [&b""[..], b"k8s", b"{}", b"K8s\0"] {
        assert!(decode(body).unwrap_err().contains("the body doesn't begin with"));
    }
}

#[test]
fn an_unknown_kind_is_named() {
    for (version, kind) in [("v1", "Binding"), ("apps/v1beta1", "Deployment"), ("", ""), ("v1", "configmap")] {
        assert_eq!(
            decode(&body(version, kind, "")).unwrap_err(),
            format!(
                "the gateway can't decode the protobuf body: the gateway doesn't know the kind {kind:?} of \
                 {version:?}. Instead, send JSON"
            )
        );
    }
}

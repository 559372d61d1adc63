#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

/// The value of an expression on an object, as JSON, or the error.
fn eval(text: &str, object: &Value) -> Result<Value, String> {
    let variables = Variables::default();
    let expression = compile(text, &Names::new())?;
    let request = json!({"operation": "CREATE"});
    let null = Value::Null;
    let scene = Scene::new([object, &null, &request, &null], &|check| check.verb == "update", &variables);
    let value = scene.value(&expression).map_err(|fault| fault.to_string())?;
    Ok(match value {
        Val::Optional(None) => json!("none"),
        value => value.json().map_err(|fault| fault.to_string())?,
    })
}

#[test]
fn expressions_have_the_values_that_the_specification_gives_them() {
    let object = json!({
        "a": {"b": "text", "n": 3, "d": 1.5, "nil": null}, "list": [1, 2, 3], "names": ["x", "y"],
        "containers": [{"name": "one", "port": 1}, {"name": "two"}],
    });
    let cases = [
        ("1 + 2 * 3 - 4 / 2 % 3", json!(5)),
        ("-object.a.n", json!(-3)),
        ("object.a.d > 1 && object.a.n == 3.0 && 3u == 3", json!(true)),
        ("'a' < 'b' ? 'yes' : 'no'", json!("yes")),
        ("object.?a.?b.orValue('z') + object.?z.?b.orValue('z')", json!("textz")),
        ("object.a.?z.b.c", json!("none")),
        ("object[?'a'].?n.hasValue()", json!(true)),
        ("optional.of(1).or(optional.none()).value()", json!(1)),
        ("optional.none().or(object.a.?n).orValue(0)", json!(3)),
        ("[?object.?z, ?object.a.?n, 1]", json!([3, 1])),
        ("{?'z': object.?z, 'n': object.a.n}", json!({"n": 3})),
        ("has(object.a.b) && !has(object.a.z) && has(object.a.nil)", json!(true)),
        ("object.list.all(i, i > 0) && object.list.exists(i, i == 2) && object.list.exists_one(i, i > 2)", json!(true)),
        ("object.list.map(i, i > 1, i * 10)", json!([20, 30])),
        ("object.list.filter(i, i != 2)", json!([1, 3])),
        ("object.names.transformList(i, name, string(i) + name)", json!(["0x", "1y"])),
        ("object.names.transformList(i, name, name == 'y', i)", json!([1])),
        ("object.a.transformList(key, value, key == 'n', value)", json!([3])),
        ("object.a.exists(key, key == 'b') && object.a.all(key, value, key != value)", json!(true)),
        ("'x' in object.names && 'b' in object.a && !('z' in object.names)", json!(true)),
        ("object.containers.map(c, c.?port.orValue(0))", json!([1, 0])),
        ("object.list.map(i, object.list.map(j, i * j))", json!([[1, 2, 3], [2, 4, 6], [3, 6, 9]])),
        ("object.list.map(object, object + 1)", json!([2, 3, 4])),
        ("[1, 2] + [3] == object.list && {'b': 1, 'a': 2} == {'a': 2, 'b': 1.0}", json!(true)),
        ("size('äb') + size(object.list) + object.a.size()", json!(9)),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        (
            "['a', 'b'].join('-') + 'aXa'.replace('a', 'b') + 'abc'.substring(1) + 'äbc'.substring(1, 2)",
            json!("a-bbXbbcb"),
        ),
        ("'abc'.indexOf('c') + 'abca'.lastIndexOf('a') + 'abc'.indexOf('z')", json!(4)),
        ("' A '.trim().lowerAscii() + 'b'.upperAscii() + 'xyz'.charAt(1)", json!("aBy")),
        (
            "'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b') && 'abc'.matches('^a.c$')",
            json!(true),
        ),
        ("int('12') + int(1.9) + int(3u)", json!(16)),
        ("string(1) + string(true) + string('x') + string(1.5)", json!("1truex1.5")),
        ("[3, 1, 2].min() + [3, 1].max() + [1, 2].sum() + (['a', 'b'].isSorted() ? 1 : 0)", json!(8)),
        ("jsonpatch.escapeKey('a/b~c')", json!("a~1b~0c")),
        ("object.?a.optMap(a, a.n + 1).orValue(0)", json!(4)),
        ("authorizer.group('g').resource('r').check('update').allowed()", json!(true)),
        ("authorizer.group('g').resource('r').check('get').allowed()", json!(false)),
        // An operand or an item that decides makes an error unimportant.
        ("object.z == 1 || true", json!(true)),
        ("!(object.z == 1 && false)", json!(true)),
        ("[0, 1].exists(i, 1 / i == 1) && ![1, 0].all(i, 1 / i == 2)", json!(true)),
    ];
    for (text, value) in cases {
        assert_eq!(eval(text, &object), Ok(value), "{text}");
    }
}

#[test]
fn expressions_without_a_value_are_errors() {
    let object = json!({"a": {"b": "text"}, "list": [1]});
    let errors = [
        ("object.z", "no such key: z"),
        ("object.a.b.c", "a string has no field c"),
        ("object.list[1]", "no such key: index"),
        ("object.list['a']", "no such overload: an index of list and string"),
        ("object.list + 1", "no such overload: arithmetic of list and int"),
        ("1 / 0", "a number is too large"),
        ("9223372036854775807 + 1", "a number is too large"),
        ("object.a ? 1 : 2", "no such overload: a condition of map"),
        ("object.z || false", "no such key: z"),
        ("'a' < 1", "no such overload: a comparison of string and int"),
        ("optional.none().value()", "an optional has no value"),
        ("'abc'.substring(4)", "a position is outside of the string"),
        ("int('x')", "no such overload: a conversion of string"),
        ("object.list.join(',')", "no such overload: a function of strings of int"),
        ("object.a.join()", "no such overload: join of map"),
        ("object.a.min()", "no such overload: a function of lists of map"),
        ("object.a.isSorted()", "no such overload: a function of lists of map"),
    ];
    for (text, error) in errors {
        assert_eq!(eval(text, &object), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn what_is_not_known_is_an_error_before_any_request() {
    let unknown = [
        ("params.x", "the name params isn't known"),
        ("variables.x", "there is no earlier variable x"),
        ("url('x').getHost()", "the function getHost with 0 arguments isn't known here"),
        ("Object{spec: Object.spec{}}", "the type Object isn't known here"),
        ("JSONPatch{operation: 'add'}", "a JSONPatch has op, path, from and value"),
        ("'a'.matches(object.b)", "a pattern that isn't a literal can't be checked beforehand"),
        ("b'x' == b'x'", "bytes aren't known here"),
        ("has(object)", "has() needs a field"),
        ("[1].map(1, 2)", "a loop's item has no name"),
    ];
    for (text, error) in unknown {
        assert_eq!(compile(text, &Names::new()).unwrap_err(), error, "{text}");
    }
    assert!(compile("object.", &Names::new()).is_err());
}

#[test]
fn an_endless_object_is_an_error_and_not_an_endless_evaluation() {
    let many: Vec<u32> = (0..5000).collect();
    let object = json!({"many": many});
    let error = eval("object.many.all(i, object.many.all(j, i + j >= 0))", &object).unwrap_err();
    assert_eq!(error, "the object is too large to be checked");
}

#[test]
fn variables_that_mean_the_same_have_one_slot() {
    let mut variables = Variables::default();
    let (mut one, mut two) = (Names::new(), Names::new());
    variables.add("a", "object.x", &mut one).unwrap();
    variables.add("b", "variables.a + 1", &mut one).unwrap();
    variables.add("z", "object.x", &mut two).unwrap();
    variables.add("y", "variables.z + 1", &mut two).unwrap();
    variables.add("x", "variables.z + 2", &mut two).unwrap();
    assert_eq!(variables.len(), 3);
    assert_eq!(one["b"], two["y"]);
    assert!(compile("variables.z", &one).is_err());
}

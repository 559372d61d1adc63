//! Random CEL expressions on random objects: OPA decides about their Rego as the guard decides about them.

use std::collections::{BTreeMap, BTreeSet};

use ringfence::engines::opa::render;
use ringfence::guard::{Guard, User};
use serde_json::{Value, json};

use super::opa::Opa;
use crate::fuzz::Dice;
use crate::support::judge::creation;

const ROUNDS: u64 = 30;
const EXPRESSIONS: usize = 30;
const OBJECTS: usize = 60;

/// Makes expressions. `names` are those that the loops around the place give.
struct Author {
    dice: Dice,
    names: usize,
}

/// What a value is for. OPA, as the API server, refuses an expression whose types can't fit. So the functions' results are
/// only used where their type fits. Fields of the object are of any type.
#[derive(Clone, Copy)]
enum Type {
    Any,
    Number,
    Text,
    List,
}

impl Author {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.dice.below(of.len())]
    }

    fn boolean(&mut self, depth: usize) -> String {
        let Some(below) = depth.checked_sub(1) else {
            let all =
                ["has(object.a)", "has(object.c.d)", "object.?a.hasValue()", "object.a", "true", "(object.b == 'x')"];
            return self.one(&all).to_owned();
        };
        let like = self.one(&[Type::Any, Type::Number, Type::Text, Type::List]);
        match self.dice.below(15) {
            0 => format!("({} && {})", self.boolean(below), self.boolean(below)),
            1 => format!("({} || {})", self.boolean(below), self.boolean(below)),
            2 => format!("!{}", self.boolean(below)),
            3 => format!("({} ? {} : {})", self.boolean(below), self.boolean(below), self.boolean(below)),
            4 => self.looped("all", below),
            5 => self.looped("exists", below),
            6 => format!("({} == {})", self.value(like, below), self.value(like, below)),
            7 => format!("({} != {})", self.value(like, below), self.value(like, below)),
            8 => {
                let (like, sign) =
                    (self.one(&[Type::Any, Type::Number, Type::Text]), self.one(&["<", "<=", ">", ">="]));
                format!("({} {sign} {})", self.value(like, below), self.value(like, below))
            }
            9 => format!("({} in {})", self.value(like, below), self.value(Type::List, below)),
            10 => {
                let function = self.one(&["startsWith", "endsWith", "contains"]);
                format!("{}.{function}({})", self.value(Type::Text, below), self.value(Type::Text, below))
            }
            11 => format!("{}.matches('^[a-x]+$')", self.value(Type::Text, below)),
            12 => format!("({} == {})", self.optional(below), self.optional(below)),
            13 => format!("{}.hasValue()", self.optional(below)),
            _ => self.boolean(0),
        }
    }

    fn value(&mut self, like: Type, depth: usize) -> String {
        let Some(below) = depth.checked_sub(1) else { return self.atom(like) };
        match (like, self.dice.below(6)) {
            (Type::Number, 0) => format!("{}.size()", self.value(Type::List, below)),
            (Type::Number, 1) => format!("{}.size()", self.value(Type::Text, below)),
            (Type::Number, 2) => format!("int({})", self.value(Type::Any, below)),
            (Type::Number, 3) => self.one(&["0", "1", "-1"]).to_owned(),
            (Type::Text, 0) => format!("string({})", self.value(Type::Any, below)),
            (Type::Text, 1) => format!("({} + {})", self.value(Type::Text, below), self.value(Type::Text, below)),
            (Type::Text, 2) => {
                format!("{}.replace('x', {})", self.value(Type::Text, below), self.value(Type::Text, below))
            }
            (Type::Text, 3) => {
                format!("{}.substring({})", self.value(Type::Text, below), self.one(&["0", "1", "3", "-1"]))
            }
            (Type::Text, 4) => format!("{}.join(',')", self.value(Type::List, below)),
            (Type::List, 0) => self.looped("filter", below),
            (Type::List, 1) => {
                let over = self.value(Type::List, below);
                self.names += 1;
                let mapped = format!("{over}.map(x{}, {})", self.names - 1, self.value(Type::Any, below));
                self.names -= 1;
                mapped
            }
            (Type::List, 2) => format!("({} + {})", self.value(Type::List, below), self.value(Type::List, below)),
            (Type::List, 3) => format!("{}.split(',')", self.value(Type::Text, below)),
            (Type::List, 4) => format!("[{}, {}]", self.value(Type::Any, below), self.value(Type::Any, below)),
            (_, 0) => format!("{}.orValue({})", self.optional(below), self.value(Type::Any, below)),
            (_, 1) => {
                let [one, two] = [0; 2].map(|_| self.value(Type::Any, below));
                format!("({} ? {one} : {two})", self.boolean(below))
            }
            (_, 2) => format!("{}[{}]", self.value(Type::Any, below), self.one(&["0", "1", "-1", "'d'", "'x'"])),
            (_, 3) => format!("{}.value()", self.optional(below)),
            _ => self.value(like, 0),
        }
    }

    fn atom(&mut self, like: Type) -> String {
        if self.names > 0 && self.dice.below(2) == 0 {
            return format!("x{}", self.dice.below(self.names));
        }
        let names: &[&str] = match (like, self.dice.below(4)) {
            (Type::Any, _) | (_, 0) => {
                &["object.a", "object.b", "object.c", "object.c.d", "object.l", "object.l[0]", "variables.v"]
            }
            (Type::Number, _) => &["object.n", "object.m"],
            (Type::Text, _) => &["object.s", "object.t"],
            (Type::List, _) => &["object.k", "object.l"],
        };
        self.one(names).to_owned()
    }

    fn optional(&mut self, depth: usize) -> String {
        let atoms = ["object.?a", "object.?c.?d", "object.?c.d", "object.c[?'d']", "object.?c[?'d']", "object.?z"];
        match (depth.checked_sub(1), self.dice.below(3)) {
            (Some(below), 0) => format!("{}.or({})", self.optional(below), self.optional(below)),
            (Some(below), 1) => format!("{}.?d", self.value(Type::Any, below)),
            _ => self.one(&atoms).to_owned(),
        }
    }

    fn looped(&mut self, what: &str, depth: usize) -> String {
        let over = self.value(Type::List, depth);
        self.names += 1;
        let looped = format!("{over}.{what}(x{}, {})", self.names - 1, self.boolean(depth));
        self.names -= 1;
        looped
    }

    fn object(&mut self) -> Value {
        let values = [
            json!(null),
            json!(true),
            json!(false),
            json!(0),
            json!(1),
            json!(-1),
            json!("x"),
            json!("1"),
            json!(""),
            json!("é,x"),
            json!([]),
            json!(["x"]),
            json!([1, "x", null]),
            json!({}),
            json!({"d": "x"}),
            json!({"x": false}),
            json!([["x"], "x"]),
            json!(["x", "é"]),
        ];
        let right = [
            ("n", vec![json!(0), json!(1)]),
            ("m", vec![json!(-1), json!(2), json!(1.5)]),
            ("s", vec![json!("x"), json!("")]),
            ("t", vec![json!("1"), json!("a,x"), json!("é,x")]),
            ("k", vec![json!(["x"]), json!([])]),
            ("l", vec![json!(["x", "a"]), json!([1, 2]), json!({"x": 1})]),
        ];
        let mut object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}});
        for (name, right) in right {
            let of = if self.dice.below(10) == 0 { &values[..] } else { &right };
            object[name] = of[self.dice.below(of.len())].clone();
        }
        for name in ["a", "b", "c"] {
            if self.dice.below(4) > 0 {
                object[name] = values[self.dice.below(values.len())].clone();
            }
        }
        if self.dice.below(2) == 0 {
            object["c"] = json!({"d": values[self.dice.below(values.len())]});
        }
        object
    }
}

fn policy(expressions: &[String], variable: &str) -> Vec<Value> {
    let validation = |(i, expression): (usize, &String)| json!({"expression": expression, "message": format!("v{i}.")});
    let validations: Vec<Value> = expressions.iter().enumerate().map(validation).collect();
    let rules = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]);
    let group = "admissionregistration.k8s.io/v1";
    vec![
        json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "random"}, "spec": {
            "matchConstraints": {"resourceRules": rules},
            "variables": [{"name": "v", "expression": variable}], "validations": validations}}),
        json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "random"},
            "spec": {"policyName": "random", "validationActions": ["Deny"]}}),
    ]
}

#[test]
fn random_expressions_have_the_guards_verdict_in_opa() {
    let opa = Opa::start();
    opa.write_namespaces(&BTreeMap::new());
    let (mut wrong, mut tried, mut refused, mut unknown) = (Vec::new(), 0, 0, 0);
    for round in 0..ROUNDS {
        let mut author = Author { dice: Dice(round), names: 0 };
        let variable = author.value(Type::Any, 2);
        let variable = if variable.contains("variables") { "object.l".to_owned() } else { variable };
        let mut expressions = Vec::new();
        while expressions.len() < EXPRESSIONS {
            let expression = author.boolean(4);
            match render(&policy(std::slice::from_ref(&expression), &variable)) {
                Ok(_) => expressions.push(expression),
                // What isn't known is an error when the Rego is made.
                Err(_) => unknown += 1,
            }
        }
        let policies = policy(&expressions, &variable);
        let guard = Guard::new(&policies).unwrap();
        render(&policies).unwrap().iter().for_each(|map| opa.write_policy(map));
        for _ in 0..OBJECTS {
            let request = creation(&User::default(), &author.object());
            let verdict = guard.review(request.clone(), None, &|_| false);
            let of_guard: BTreeSet<usize> = (0..EXPRESSIONS)
                .filter(|i| {
                    let says = |message: &str| {
                        message == format!("v{i}.")
                            || message.starts_with(&format!("expression '{}' ", expressions[*i]))
                    };
                    verdict.refusals.iter().any(|refusal| says(&refusal.message))
                })
                .collect();
            let (_, message) = opa.answer(&request);
            let of_opa: BTreeSet<usize> =
                (0..EXPRESSIONS).filter(|i| message.split("; ").any(|one| one == format!("v{i}."))).collect();
            tried += EXPRESSIONS;
            refused += of_opa.len();
            for i in of_guard.symmetric_difference(&of_opa) {
                let object = request.object.clone().unwrap();
                wrong.push(format!(
                    "{} (v = {variable}) on {object}: refused by OPA: {}",
                    expressions[*i],
                    of_opa.contains(i)
                ));
            }
        }
    }
    println!("{tried} verdicts, {refused} of them refusals; {unknown} expressions aren't known in Rego");
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {tried} differ:\n{}", wrong.len(), shown.join("\n"));
    assert!(refused > tried / 10 && refused < tried * 9 / 10, "{refused} of {tried}");
}

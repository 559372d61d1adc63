//! Calls about users.

use super::super::clock::iso8601;
use super::super::state::State;
use super::super::wire::{Fault, Reply, Request};
use super::request::{list, name, new_tags, no_such, path, wire_tags};
use super::{Iam, User, last_segment};
use serde_json::{Value, json};

pub fn call(state: &mut State, req: &Request) -> Reply {
    if req.operation == "CreateUser" {
        return create_user(state, req);
    }
    let iam = &mut state.account(&req.account).iam;
    match req.operation.as_str() {
        "GetUser" => Ok(json!({"User": iam.user(req)?.wire()})),
        "ListUsers" => {
            let prefix = req.text("PathPrefix").unwrap_or_else(|| "/".to_owned());
            let users = iam.users.values().filter(|user| user.path.starts_with(&prefix));
            list(req, "Users", users.map(|user| (user.name.clone(), user.wire())))
        }
        "DeleteUser" => {
            let name = iam.user(req)?.name.clone();
            iam.users.remove(&name);
            Ok(json!({}))
        }
        _ => Err(req.unknown_operation()),
    }
}

impl Iam {
    fn user(&self, req: &Request) -> Result<&User, Fault> {
        let name = req.text("UserName").unwrap_or_else(|| last_segment(&req.caller.arn).to_owned());
        let found = self.users.get(&name);
        found.ok_or_else(|| no_such(format!("The user with name {name} cannot be found.")))
    }
}

impl User {
    pub(super) fn wire(&self) -> Value {
        json!({
            "Path": self.path, "UserName": self.name, "UserId": self.id, "Arn": self.arn, "CreateDate": self.created,
            "Tags": wire_tags(&self.tags),
        })
    }
}

fn create_user(state: &mut State, req: &Request) -> Reply {
    let (name, path, tags) = (name(req, "UserName", 64)?, path(req)?, new_tags(req)?);
    let user = User {
        id: state.ids.unique("AIDA"),
        arn: format!("arn:{}:iam::{}:user{path}{name}", req.partition(), req.account),
        path,
        created: iso8601(req.now),
        tags,
        name,
    };
    let users = &mut state.account(&req.account).iam.users;
    if users.contains_key(&user.name) {
        let message = format!("User with name {} already exists.", user.name);
        return Err(Fault::new(409, "EntityAlreadyExists", message));
    }
    let reply = json!({"User": user.wire()});
    users.insert(user.name.clone(), user);
    Ok(reply)
}

//! What a tenant may do.
use super::baseline::POOL;
use serde_json::json;

#[test]
fn look() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "t-red"},
        "spec": {"containers": [{"name": "c", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/web:1"}]}});
    let tenant = POOL.plane.tenant("red");
    #[expect(clippy::disallowed_methods)]
    std::thread::sleep(std::time::Duration::from_secs(2));
    let made = tenant.try_create(&pod);
    println!("{:#}", made.body);
    println!("{}", serde_json::to_string_pretty(&POOL.plane.admin().get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies").body["items"].as_array().unwrap().iter().map(|p| json!([p["metadata"]["name"], p["status"]])).collect::<Vec<_>>()).unwrap());
}

# Made by ringfence. The entry point of the webhook: OPA answers a request
# without a path with this decision.
package system

import rego.v1

main := {
	"apiVersion": "admission.k8s.io/v1",
	"kind": "AdmissionReview",
	"response": response,
}

response := refused(503, not_yet) if {
	count(not_yet) > 0
} else := refused(403, refusals) if {
	count(refusals) > 0
} else := {
	"uid": input.request.uid,
	"allowed": true,
}

refused(code, messages) := {
	"uid": input.request.uid,
	"allowed": false,
	"status": {"code": code, "message": concat("; ", messages)},
}

refusals := [message |
	some name in policies
	some message in data.ringfence.policies[name].refusals
]

# Without a policy, nothing is admitted: OPA loads one after the other. A client
# may try again.
not_yet := array.concat(
	[sprintf("the policy %s isn't loaded into OPA yet; if this lasts, look at the status of its ConfigMap", [name]) |
		some name in policies
		not data.ringfence.policies[name].loaded
	],
	[sprintf("the namespace %s isn't known to OPA yet; if this lasts, let kube-mgmt replicate Namespaces", [name]) |
		name := input.request.namespace
		unknown_namespace
	],
)

unknown_namespace if {
	some name in policies
	data.ringfence.policies[name].unknown_namespace
}


# What CEL's functions mean. An error is undefined, as in CEL, where it refuses
# the request. An optional value is an array: empty, or with the value.

# The items of a list, or the keys of a map.
items(of) := of if is_array(of)

items(of) := [key | some key, _ in of] if is_object(of)

member(value, of) := value in of if is_array(of)

member(value, of) := value in object.keys(of) if is_object(of)

has(of, name) if {
	is_object(of)
	_ = of[name]
} else := false if is_object(of)

has_inner([of], name) := has(of, name)

has_inner([], _) := false

maybe(of, name) := [of[name]] if {
	is_object(of)
} else := [] if is_object(of)

further([of], name) := maybe(of, name)

further([], _) := []

or_value([value], _) := value

or_value([], other) := other

added(one, two) := concat("", [one, two]) if {
	is_string(one)
	is_string(two)
}

added(one, two) := array.concat(one, two) if {
	is_array(one)
	is_array(two)
}

comparable(one, two) if {
	is_number(one)
	is_number(two)
}

comparable(one, two) if {
	is_string(one)
	is_string(two)
}

comparable(one, two) if {
	is_boolean(one)
	is_boolean(two)
}

text(value) := value if is_string(value)

text(value) := format_int(value, 10) if {
	is_number(value)
	value == floor(value)
}

text(true) := "true"

text(false) := "false"

whole(value) := floor(value) if {
	is_number(value)
	value >= 0
	value < 9223372036854775808
}

whole(value) := ceil(value) if {
	is_number(value)
	value < 0
	value >= -9223372036854775808
}

whole(value) := to_number(value) if {
	is_string(value)
	regex.match(`^-?[0-9]{1,18}$`, value)
}

part(of, from) := substring(of, from, -1) if {
	from >= 0
	from <= count(of)
}

# The message of an expression, if the API server would take it.
one_line(value) := line if {
	line := trim_space(value)
	line != ""
	count(line) <= 5120
	not contains(line, "\n")
}

# The request.

resource := concat("/", [name |
	some name in [input.request.resource.resource, object.get(input.request, "subResource", "")]
	name != ""
])

of_namespace if {
	input.request.resource.group == ""
	input.request.resource.resource == "namespaces"
}

namespaced if {
	not of_namespace
	input.request.namespace != ""
}

# kube-mgmt replicates the Namespaces.
namespace_object := data.kubernetes.namespaces[input.request.namespace]

labels := object.get(namespace_object, ["metadata", "labels"], {}) if namespaced

labels := object.get(changed_namespace, ["metadata", "labels"], {}) if of_namespace

changed_namespace := input.request.object if {
	is_object(input.request.object)
} else := input.request.oldObject

loaded := true

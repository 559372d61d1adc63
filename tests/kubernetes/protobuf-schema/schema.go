package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Types with a JSON form of their own. The decoder has code for each.
var special = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():          "Time",
	reflect.TypeFor[metav1.MicroTime]():     "MicroTime",
	reflect.TypeFor[metav1.Duration]():      "Duration",
	reflect.TypeFor[metav1.FieldsV1]():      "FieldsV1",
	reflect.TypeFor[resource.Quantity]():    "Quantity",
	reflect.TypeFor[intstr.IntOrString]():   "IntOrString",
	reflect.TypeFor[runtime.RawExtension](): "RawExtension",
}

const header = `# The protobuf messages of Kubernetes that the gateway decodes.
# Written by tests/kubernetes/protobuf-schema from the Go types of k8s.io/api. Do not edit.
#
# kind APIVERSION KIND MESSAGE     "*" stands for any apiVersion.
# message NAME                     Its fields follow: NUMBER JSON-NAME TYPE. A "?" after the name: omitempty.
#                                  The name "." is an inline message: its fields belong to the message around it.
# list NAME TYPE                   A message whose field 1 is repeated, and which is an array in JSON.
`

type table struct {
	out  map[string]string
	seen map[reflect.Type]bool
}

func printSchema(scheme *runtime.Scheme, out io.Writer) error {
	fmt.Fprint(out, header)
	t := table{out: map[string]string{}, seen: map[reflect.Type]bool{}}
	fmt.Fprintln(out)
	for _, group := range kinds {
		for _, name := range group.names {
			object, err := scheme.New(group.version.WithKind(name))
			if err != nil {
				return err
			}
			root := reflect.TypeOf(object).Elem()
			if err := t.message(root); err != nil {
				return err
			}
			version := group.version.String()
			if group.version == metav1.SchemeGroupVersion {
				version = anyVersion
			}
			fmt.Fprintf(out, "kind %s %s %s\n", version, name, messageName(root))
		}
	}
	names := make([]string, 0, len(t.out))
	for name := range t.out {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(out, "\n%s", t.out[name])
	}
	return nil
}

// The group is part of the name: apps/v1 and autoscaling/v1 may each have a message of one name.
func messageName(t reflect.Type) string {
	directory, version := path.Split(t.PkgPath())
	return path.Base(directory) + "/" + version + "." + t.Name()
}

// True for a slice type that is a message of its own, as ExtraValue is.
func isList(t reflect.Type) bool {
	_, ok := reflect.PointerTo(t).MethodByName("Unmarshal")
	return t.Kind() == reflect.Slice && ok
}

func (t *table) message(m reflect.Type) error {
	if t.seen[m] {
		return nil
	}
	t.seen[m] = true
	name := messageName(m)
	if _, ok := t.out[name]; ok {
		return fmt.Errorf("two messages have the name %s", name)
	}
	if isList(m) {
		element, err := t.element(m.Elem())
		t.out[name] = fmt.Sprintf("list %s %s\n", name, element)
		return err
	}
	type line struct {
		number int
		text   string
	}
	var lines []line
	for i := range m.NumField() {
		number, text, err := t.field(m.Field(i))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if number > 0 {
			lines = append(lines, line{number, text})
		}
	}
	sort.Slice(lines, func(a, b int) bool { return lines[a].number < lines[b].number })
	text := "message " + name + "\n"
	for i, l := range lines {
		if i > 0 && lines[i-1].number == l.number {
			return fmt.Errorf("%s: two fields have the number %d", name, l.number)
		}
		text += fmt.Sprintf("  %d %s\n", l.number, l.text)
	}
	t.out[name] = text
	return nil
}

// The number 0 stands for a field that protobuf doesn't have.
func (t *table) field(f reflect.StructField) (int, string, error) {
	protobuf := strings.Split(f.Tag.Get("protobuf"), ",")
	jsonName, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	if protobuf[0] == "" {
		// The kind of an object stands in the envelope.
		if f.Type == reflect.TypeFor[metav1.TypeMeta]() {
			return 0, "", nil
		}
		return 0, "", fmt.Errorf("%s has no protobuf tag", f.Name)
	}
	number, err := strconv.Atoi(protobuf[1])
	if err != nil {
		return 0, "", err
	}
	name := jsonName
	for _, option := range strings.Split(options, ",") {
		switch option {
		case "":
		case "inline":
			if name != "" || f.Type.Kind() != reflect.Struct || special[f.Type] != "" {
				return 0, "", fmt.Errorf("%s is inline, and isn't a plain struct without a name", f.Name)
			}
			name = "."
		case "omitempty":
			name += "?"
		case "omitzero":
			// The decoder leaves an empty struct out anyway.
			if f.Type.Kind() != reflect.Struct {
				return 0, "", fmt.Errorf("%s has omitzero, and isn't a struct", f.Name)
			}
		default:
			return 0, "", fmt.Errorf("%s has the unknown JSON option %s", f.Name, option)
		}
	}
	if name == "" || name[0] == '?' || name[0] == '-' {
		return 0, "", fmt.Errorf("%s has no JSON name", f.Name)
	}
	form, err := t.form(f.Type)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", f.Name, err)
	}
	return number, name + " " + form, nil
}

// The Go type decides what is repeated and which wire type it has, as in go-to-protobuf. The tag is wrong at times:
// SecretVolumeSource.defaultMode of core/v1 has "bytes", and is a varint. ISCSIVolumeSource.portals has "opt", and is
// a slice.
func (t *table) form(f reflect.Type) (string, error) {
	prefix := ""
	switch {
	case f.Kind() == reflect.Pointer:
		prefix, f = "*", f.Elem()
	case f.Kind() == reflect.Map && f.Key().Kind() == reflect.String:
		prefix, f = "map[string]", f.Elem()
	case f.Kind() == reflect.Slice && !isList(f) && f.Elem().Kind() != reflect.Uint8:
		prefix, f = "[]", f.Elem()
	}
	element, err := t.element(f)
	return prefix + element, err
}

func (t *table) element(f reflect.Type) (string, error) {
	if name := special[f]; name != "" {
		return name, nil
	}
	if reflect.PointerTo(f).Implements(reflect.TypeFor[json.Marshaler]()) {
		return "", fmt.Errorf("the type %s has a JSON form of its own, and no case in the decoder", f)
	}
	switch {
	case f.Kind() == reflect.String:
		return "string", nil
	case f.Kind() == reflect.Bool:
		return "bool", nil
	case f.Kind() == reflect.Int32:
		return "int32", nil
	case f.Kind() == reflect.Int64:
		return "int64", nil
	case f.Kind() == reflect.Slice && f.Elem().Kind() == reflect.Uint8:
		return "bytes", nil
	case f.Kind() == reflect.Struct || isList(f):
		if err := t.message(f); err != nil {
			return "", err
		}
		return messageName(f), nil
	}
	return "", fmt.Errorf("the type %s has no case in the decoder", f)
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type line struct {
	JSON     json.RawMessage `json:"json"`
	Protobuf []byte          `json:"protobuf"`
}

func printFixture(scheme *runtime.Scheme, in io.Reader, out io.Writer) error {
	// Strict, so that a mistyped field of an object isn't lost in silence.
	decoder := kubejson.NewSerializerWithOptions(
		kubejson.DefaultMetaFactory, scheme, scheme, kubejson.SerializerOptions{Strict: true},
	)
	objects := bufio.NewScanner(in)
	objects.Buffer(nil, 1<<20)
	for n := 1; objects.Scan(); n++ {
		object, _, err := decoder.Decode(objects.Bytes(), nil, nil)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := printLine(scheme, object, out); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := objects.Err(); err != nil {
		return err
	}
	random := rand.New(rand.NewSource(1))
	for _, group := range kinds {
		for _, name := range group.names {
			for _, sparse := range []bool{false, true} {
				if err := printRandom(scheme, group.version.WithKind(name), filler{random, sparse}, out); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	}
	return nil
}

func printRandom(scheme *runtime.Scheme, kind schema.GroupVersionKind, f filler, out io.Writer) error {
	object, err := scheme.New(kind)
	if err != nil {
		return err
	}
	f.fill(reflect.ValueOf(object).Elem())
	object.GetObjectKind().SetGroupVersionKind(kind)
	return printLine(scheme, object, out)
}

func printLine(scheme *runtime.Scheme, object runtime.Object, out io.Writer) error {
	asJSON, err := json.Marshal(object)
	if err != nil {
		return err
	}
	var asProtobuf bytes.Buffer
	if err := protobuf.NewSerializer(scheme, scheme).Encode(object, &asProtobuf); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(line{asJSON, asProtobuf.Bytes()})
}

// Fills objects with random values. randfill isn't used: it leaves pointers to some types nil, and named strings empty.
type filler struct {
	*rand.Rand
	// Many fields are nil or zero. Otherwise, none is.
	sparse bool
}

func (f filler) omits() bool {
	return f.sparse && f.Intn(2) == 0
}

func (f filler) count() int {
	if f.sparse {
		return f.Intn(3)
	}
	return 1
}

func (f filler) fill(v reflect.Value) {
	if f.special(v.Addr().Interface()) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Pointer:
		if !f.omits() {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem())
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), f.count(), 2))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range f.count() {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(value)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		if !f.omits() {
			v.SetString(f.text())
		}
	case reflect.Bool:
		v.SetBool(!f.omits())
	case reflect.Int32, reflect.Int64:
		if !f.omits() {
			v.SetInt(int64(f.Uint64() | 1))
		}
	case reflect.Uint8:
		v.SetUint(f.Uint64())
	default:
		panic("no random value for " + v.Type().String())
	}
}

// True for a type that has a value of a certain form.
func (f filler) special(value any) bool {
	switch value := value.(type) {
	case *metav1.TypeMeta:
	case *metav1.Time:
		if !f.omits() {
			value.Time = f.moment()
		}
	case *metav1.MicroTime:
		value.Time = f.moment()
	case *metav1.FieldsV1:
		value.SetRawBytes([]byte(`{"f:spec":{".":{},"k:{\"port\":80}":{"f:port":{}}}}`))
	case *runtime.RawExtension:
		value.Raw = fmt.Appendf(nil, `{"a":[%d,-1.5,null,true,{}],"b":{"c":"\u00e9"}}`, f.Int())
	case *resource.Quantity:
		formats := []resource.Format{resource.BinarySI, resource.DecimalSI, resource.DecimalExponent}
		*value = *resource.NewMilliQuantity(f.Int63n(1<<40)-1<<30, formats[f.Intn(len(formats))])
	case *intstr.IntOrString:
		*value = intstr.FromInt32(int32(f.Uint32()))
		if f.Intn(2) == 0 {
			*value = intstr.FromString(f.text())
		}
	case *corev1.PodTemplateSpec:
		// Eight kinds have this template. A whole PodSpec stands in the fixture as a Pod.
		value.Labels = map[string]string{"app": f.text()}
		value.Spec.Containers = []corev1.Container{{Name: f.text(), Image: f.text()}}
	default:
		return false
	}
	return true
}

// A time from 1700 to 2100, before and after the zero of Unix.
func (f filler) moment() time.Time {
	return time.Unix(f.Int63n(400*365*86400)-270*365*86400, f.Int63n(1e9))
}

func (f filler) text() string {
	alphabet := []rune("abcxyz019-./é💥\"<\\\n")
	runes := make([]rune, 1+f.Intn(4))
	for i := range runes {
		runes[i] = alphabet[f.Intn(len(alphabet))]
	}
	return string(runes)
}

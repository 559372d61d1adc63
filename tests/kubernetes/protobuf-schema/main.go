// Writes the two files by which ringfence's gateway decodes Kubernetes' protobuf:
//
//	go run . schema > ../../../src/gateway/protobuf/schema.txt
//	go run . fixture < objects.jsonl > ../../gateway/protobuf.jsonl
//
// `schema` prints the messages and fields of every kind below, read from the Go types by reflection. `fixture` prints
// objects, each as encoding/json and as apimachinery's protobuf serializer write it: first the objects of standard
// input, one a line, then objects with random values. Both outputs depend on the versions in go.mod alone.
package main

import (
	"bufio"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// Kinds of any group: each group version of an API server registers them.
const anyVersion = "*"

var kinds = []struct {
	version schema.GroupVersion
	names   []string
}{
	{corev1.SchemeGroupVersion, []string{
		"Pod", "ConfigMap", "Secret", "Service", "PersistentVolumeClaim", "ReplicationController", "Event",
		"ServiceAccount", "Namespace", "LimitRange", "ResourceQuota",
	}},
	{appsv1.SchemeGroupVersion, []string{
		"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ControllerRevision",
	}},
	{batchv1.SchemeGroupVersion, []string{"Job", "CronJob"}},
	{autoscalingv1.SchemeGroupVersion, []string{"HorizontalPodAutoscaler", "Scale"}},
	{autoscalingv2.SchemeGroupVersion, []string{"HorizontalPodAutoscaler"}},
	{policyv1.SchemeGroupVersion, []string{"PodDisruptionBudget", "Eviction"}},
	{networkingv1.SchemeGroupVersion, []string{"Ingress", "NetworkPolicy"}},
	{authorizationv1.SchemeGroupVersion, []string{"SelfSubjectAccessReview", "SelfSubjectRulesReview"}},
	{authenticationv1.SchemeGroupVersion, []string{"SelfSubjectReview"}},
	{coordinationv1.SchemeGroupVersion, []string{"Lease"}},
	{rbacv1.SchemeGroupVersion, []string{"Role", "RoleBinding"}},
	{metav1.SchemeGroupVersion, []string{"DeleteOptions"}},
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, autoscalingv1.AddToScheme,
		autoscalingv2.AddToScheme, policyv1.AddToScheme, networkingv1.AddToScheme, authorizationv1.AddToScheme,
		authenticationv1.AddToScheme, coordinationv1.AddToScheme, rbacv1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	return scheme
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	mode := ""
	if len(os.Args) == 2 {
		mode = os.Args[1]
	}
	var err error
	switch mode {
	case "schema":
		err = printSchema(newScheme(), out)
	case "fixture":
		err = printFixture(newScheme(), os.Stdin, out)
	default:
		err = fmt.Errorf("call it as `go run . schema` or `go run . fixture < objects.jsonl`")
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Decodes Kubernetes manifests from standard input into the API's own types. An unknown or repeated field is an
// error. Prints the kind and the name of each.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	strict "sigs.k8s.io/json"
)

func main() {
	if err := run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(input io.Reader) error {
	text, err := io.ReadAll(input)
	if err != nil {
		return err
	}
	documents := strings.Split(string(text), "---\n")
	if documents[0] != "" {
		return fmt.Errorf("the text does not begin with a document")
	}
	for _, document := range documents[1:] {
		if err := decode([]byte(document)); err != nil {
			return err
		}
	}
	return nil
}

func decode(document []byte) error {
	var kind meta.TypeMeta
	if err := json.Unmarshal(document, &kind); err != nil {
		return err
	}
	var object meta.Object
	switch kind.APIVersion + " " + kind.Kind {
	case "apps/v1 Deployment":
		object = &apps.Deployment{}
	case "v1 PersistentVolumeClaim":
		object = &core.PersistentVolumeClaim{}
	default:
		return fmt.Errorf("unexpected kind: %s %s", kind.APIVersion, kind.Kind)
	}
	problems, err := strict.UnmarshalStrict(document, object)
	if err != nil {
		return err
	}
	for _, problem := range problems {
		return problem
	}
	fmt.Println(kind.Kind, object.GetName())
	return nil
}

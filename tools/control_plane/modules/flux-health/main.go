// Command flux-health tells what Flux makes of objects: once by its own reading of statuses (kstatus), once by health
// check expressions.
//
// Both are Flux' own code. It reads JSON objects from standard input, one after the other, and writes one for each.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// question is an object as the API server holds it, and the expressions to judge it by.
type question struct {
	Object      json.RawMessage                  `json:"object"`
	Expressions kustomize.HealthCheckExpressions `json:"expressions"`
}

// answer is one of Flux' statuses (InProgress, Failed, Current, Terminating) by each of the two ways, or why there is
// none. Without one Flux shows Unknown, and goes on waiting.
type answer struct {
	Kstatus        string `json:"kstatus"`
	KstatusMessage string `json:"kstatus_message"`
	Expressions    string `json:"expressions"`
	Error          string `json:"error"`
}

func main() {
	if err := run(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(questions *json.Decoder, answers *json.Encoder) error {
	for {
		var asked question
		if err := questions.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		told, err := judge(asked)
		if err == nil {
			err = answers.Encode(told)
		}
		if err != nil {
			return err
		}
	}
}

func judge(asked question) (answer, error) {
	// The decoder of unstructured objects keeps integers as integers, as Flux gets them from the API server.
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil {
		return answer{}, err
	}
	general, err := status.Compute(object)
	if err != nil {
		return answer{}, err
	}
	told := answer{Kstatus: string(general.Status), KstatusMessage: general.Message}
	evaluator, err := cel.NewStatusEvaluator(&asked.Expressions)
	if err != nil {
		return answer{}, err
	}
	found, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		told.Error = err.Error()
	} else {
		told.Expressions = string(found.Status)
	}
	return told, nil
}

// Command alerts tells which alerts of a file of rules fire, and when, on time series that it is given.
//
// It reads one JSON object from standard input and writes one: for every evaluation, by its second, how many alerts of
// each name fire. Rules are evaluated by Prometheus' own code.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

// story is the input: series in the language of Prometheus' own tests ("load 1m ..."), and for how long to go on.
type story struct {
	Rules           string `json:"rules"`
	Load            string `json:"load"`
	IntervalSeconds int    `json:"interval_seconds"`
	UntilSeconds    int    `json:"until_seconds"`
}

func main() {
	var told story
	err := json.NewDecoder(os.Stdin).Decode(&told)
	if err == nil {
		var firing map[int]map[string]int
		if firing, err = evaluate(told); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(firing)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func evaluate(told story) (map[int]map[string]int, error) {
	model.NameValidationScheme = model.UTF8Validation // as Prometheus itself has it
	suite, err := promqltest.NewLazyLoader(told.Load, promqltest.LazyLoaderOpts{
		EnableAtModifier: true, EnableNegativeOffset: true,
	})
	if err != nil {
		return nil, err
	}
	defer suite.Close()
	interval := time.Duration(told.IntervalSeconds) * time.Second
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()),
		Appendable: suite.Storage(),
		Context:    context.Background(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger:     promslog.NewNopLogger(),
	})
	groups, problems := manager.LoadGroups(interval, labels.EmptyLabels(), "", nil, false, told.Rules)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	firing := map[int]map[string]int{}
	for second := 0; second <= told.UntilSeconds; second += told.IntervalSeconds {
		now := time.Unix(int64(second), 0).UTC()
		suite.WithSamplesTill(now, func(loadError error) {
			if err = loadError; err == nil {
				firing[second], err = step(suite.Context(), groups, now)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("second %d: %w", second, err)
		}
	}
	return firing, nil
}

// step evaluates every rule once and counts the alerts that fire.
func step(ctx context.Context, groups map[string]*rules.Group, now time.Time) (map[string]int, error) {
	firing := map[string]int{}
	for _, group := range groups {
		group.Eval(ctx, now)
		for _, rule := range group.Rules() {
			if err := rule.LastError(); err != nil {
				return nil, fmt.Errorf("%s: %w", rule.Name(), err)
			}
			alerting, ok := rule.(*rules.AlertingRule)
			if !ok {
				continue
			}
			for _, alert := range alerting.ActiveAlerts() {
				if alert.State == rules.StateFiring {
					firing[rule.Name()]++
				}
			}
		}
	}
	return firing, nil
}

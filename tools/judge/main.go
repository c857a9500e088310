// Judge reads a history of registry operations and says whether it is linearizable.
//
// One JSON object a line on stdin: key, kind (put, delete, read), value, call and return in nanoseconds of one clock,
// outcome (created, configured, unchanged, gone, present, absent, unknown), uid. An operation whose outcome is unknown has no
// return: it may have taken effect at any time after its call, or never. One that was certainly not applied is not in
// the history. Prints one JSON object; the exit status is 0 when the history is linearizable, 1 when it is not, 2 when
// it cannot be told (bad input, time is up).
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Client  int    `json:"client"`
	Key     string `json:"key"`
	Kind    string `json:"kind"`
	Value   int    `json:"value"`
	Call    int64  `json:"call"`
	Return  int64  `json:"return"`
	Outcome string `json:"outcome"`
	UID     string `json:"uid"`
}

// row is an agent's row: absent, or a value under a uid. A put whose outcome nobody was told leaves the uid open
// (0) until the next answer names it. Uids grow: newest is the greatest that this name ever had.
type row struct {
	present bool
	value   int
	uid     int64
	newest  int64
}

type verdict struct {
	Linearizable bool     `json:"linearizable"`
	Decided      bool     `json:"decided"`
	Operations   int      `json:"operations"`
	Unknown      int      `json:"unknown"`
	Keys         int      `json:"keys"`
	Bad          []string `json:"bad"`
	Seconds      float64  `json:"seconds"`
}

func step(state, input, output any) (bool, any) {
	before, op := state.(row), input.(operation)
	outcome := output.(string)
	uid, _ := strconv.ParseInt(op.UID, 10, 64)
	switch op.Kind {
	case "put":
		return put(before, op, outcome, uid)
	case "delete":
		return remove(before, outcome, uid)
	case "read":
		return look(before, op, outcome, uid)
	}
	return false, before
}

func put(before row, op operation, outcome string, uid int64) (bool, row) {
	if !before.present {
		created := row{present: true, value: op.Value, uid: uid, newest: max(before.newest, uid)}
		return outcome == "unknown" || (outcome == "created" && uid > before.newest), created
	}
	after := before
	after.value = op.Value
	if outcome == "unknown" {
		return true, after
	}
	if before.uid == 0 { // the one who created it was not told
		if uid <= before.newest {
			return false, before
		}
		after.uid, after.newest = uid, uid
	}
	wanted := "configured"
	if before.value == op.Value {
		wanted = "unchanged"
	}
	return outcome == wanted && after.uid == uid, after
}

func remove(before row, outcome string, uid int64) (bool, row) {
	after := row{newest: before.newest}
	switch {
	case outcome == "unknown":
		return true, after
	case outcome != "gone":
		return false, before
	case !before.present:
		return uid == 0, after
	case before.uid == 0:
		after.newest = uid
		return uid > before.newest, after
	default:
		return before.uid == uid, after
	}
}

func look(before row, op operation, outcome string, uid int64) (bool, row) {
	if outcome == "absent" {
		return !before.present, before
	}
	after := before
	if before.uid == 0 {
		after.uid, after.newest = uid, uid
	}
	return outcome == "present" && before.present && before.value == op.Value && after.uid == uid, after
}

func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return row{} },
		Step: step,
		DescribeOperation: func(input, output any) string {
			op := input.(operation)
			return fmt.Sprintf("%s %s %d: %s %s", op.Kind, op.Key, op.Value, output, op.UID)
		},
	}
}

func read() (map[string][]porcupine.Operation, verdict, error) {
	byKey, result := map[string][]porcupine.Operation{}, verdict{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var op operation
		if err := json.Unmarshal(lines.Bytes(), &op); err != nil {
			return nil, result, fmt.Errorf("operation %d: %w", result.Operations+1, err)
		}
		result.Operations++
		end := op.Return
		if op.Outcome == "unknown" {
			result.Unknown++
			end = math.MaxInt64
			if op.Kind == "read" {
				continue
			}
		}
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{
			ClientId: op.Client, Input: op, Call: op.Call, Output: op.Outcome, Return: end,
		})
	}
	result.Keys = len(byKey)
	return byKey, result, lines.Err()
}

func main() {
	limit := flag.Duration("limit", time.Minute, "for all keys together")
	flag.Parse()
	began := time.Now()
	byKey, result, err := read()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	result.Linearizable, result.Decided, result.Bad = true, true, []string{}
	for key, history := range byKey {
		left := *limit - time.Since(began)
		switch porcupine.CheckOperationsTimeout(model(), history, max(left, time.Millisecond)) {
		case porcupine.Illegal:
			result.Linearizable = false
			result.Bad = append(result.Bad, key)
		case porcupine.Unknown:
			result.Decided = false
		}
	}
	result.Seconds = time.Since(began).Seconds()
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(2)
	}
	switch {
	case !result.Linearizable:
		os.Exit(1)
	case !result.Decided:
		os.Exit(2)
	}
}

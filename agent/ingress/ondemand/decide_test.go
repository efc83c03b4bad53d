package ondemand

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	most := Limits{Questions: 2, Waiting: 4, ClientWaiting: 2}
	for name, c := range map[string]struct {
		look Look
		want Verb
	}{
		"a new host":                  {Look{Name: true, Connected: true}, Ask},
		"no name of a host":           {Look{Connected: true}, Unknown},
		"the table is complete":       {Look{Name: true, Connected: true, All: true}, Unknown},
		"the table was complete":      {Look{Name: true, All: true}, Unknown},
		"the server has said so":      {Look{Name: true, Connected: true, Known: true, Waiting: 4}, Unknown},
		"the server has been asked":   {Look{Name: true, Connected: true, Asked: true, Questions: 2}, Wait},
		"asked, and away since":       {Look{Name: true, Asked: true}, Wait},
		"away":                        {Look{Name: true}, Away},
		"too many questions":          {Look{Name: true, Connected: true, Questions: 2}, Busy},
		"too many requests":           {Look{Name: true, Connected: true, Asked: true, Waiting: 4}, Busy},
		"too many of one client":      {Look{Name: true, Connected: true, ClientWaiting: 2}, Busy},
		"room for one more of client": {Look{Name: true, Connected: true, ClientWaiting: 1, Waiting: 3, Questions: 1}, Ask},
	} {
		if got := Decide(c.look, most); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestExpired(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	hosts := func(ages ...time.Duration) (all []Host) {
		for i, age := range ages {
			all = append(all, Host{fmt.Sprintf("h%d", i), now.Add(-age)})
		}
		return all
	}
	most := Limits{Held: 10, Idle: time.Hour}
	many := make([]time.Duration, 11)
	for i := range many {
		many[i] = time.Duration(i) * time.Minute
	}
	for name, c := range map[string]struct {
		hosts []Host
		want  []string
	}{
		"none":                      {nil, nil},
		"used":                      {hosts(0, time.Minute, 59*time.Minute), nil},
		"unused":                    {hosts(0, time.Hour, 2*time.Hour), []string{"h2", "h1"}},
		"as many as can be held":    {hosts(many[:10]...), nil},
		"more than can be held":     {hosts(many...), []string{"h10", "h9"}},
		"a clock that was set back": {hosts(-time.Hour, 0), nil},
	} {
		if got := Expired(c.hosts, most, now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

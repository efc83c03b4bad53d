package syntax

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func mustSchedule(t *testing.T, cron, zone string) Schedule {
	t.Helper()
	s, err := ParseSchedule(&carav1.BackupSchedule{Cron: cron, TimeZone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseScheduleRefuses(t *testing.T) {
	tests := []struct{ name, cron, zone, field string }{
		{"nothing", "", "", "cron"},
		{"words", "every day", "", "cron"},
		{"six fields", "0 30 3 * * *", "", "cron"},
		{"an hour that no day has", "0 25 * * *", "", "cron"},
		{"a day that no month has", "0 0 31 2 *", "", "cron"},
		{"an interval", "@every 1h", "", "cron"},
		{"a start", "@reboot", "", "cron"},
		{"a zone in cron", "TZ=Europe/Berlin 30 3 * * *", "", "cron"},
		{"a zone in cron without a time", "TZ=", "", "cron"},
		{"a zone that does not exist", "30 3 * * *", "Mars/Olympus", "timeZone"},
		{"the zone of the machine", "30 3 * * *", "Local", "timeZone"},
		{"a path as a zone", "30 3 * * *", "../../etc/passwd", "timeZone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseSchedule(&carav1.BackupSchedule{Cron: tt.cron, TimeZone: tt.zone})
			if err == nil || err.Field != tt.field {
				t.Errorf("got %v, want an error about %s", err, tt.field)
			}
		})
	}
}

// TestScheduleNext walks from one time to the next. In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29, and from 03:00
// to 02:00 on 2026-10-25.
func TestScheduleNext(t *testing.T) {
	tests := []struct {
		name, cron, zone, from string
		want                   []string
	}{
		{"every night in UTC", "30 3 * * *", "", "2026-01-31T03:30:00Z", []string{"2026-02-01T03:30:00Z", "2026-02-02T03:30:00Z"}},
		{"a name", "@daily", "", "2026-01-31T03:30:00Z", []string{"2026-02-01T00:00:00Z"}},
		{"a time zone", "30 3 * * *", "America/New_York", "2026-01-31T00:00:00Z", []string{"2026-01-31T08:30:00Z"}},
		{"half an hour of offset", "0 3 * * *", "Asia/Kolkata", "2026-01-31T00:00:00Z", []string{"2026-01-31T21:30:00Z"}},
		{
			"a time that is skipped comes once, an hour later by the clock", "30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z",
			[]string{"2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"},
		},
		{"asked right after the skip", "30 2 * * *", "Europe/Berlin", "2026-03-29T01:05:00Z", []string{"2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"}},
		{
			"a time that comes twice counts once", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		},
		{"asked between the two", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", []string{"2026-10-26T01:30:00Z"}},
		{
			"every hour over the skip", "0 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		},
		{
			"every half hour over the skip, in order", "*/30 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"},
		},
		{
			"every hour over the hour that comes twice", "0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"},
		},
		{"a zone without that day", "0 3 * * *", "Pacific/Apia", "2011-12-29T14:00:00Z", []string{"2011-12-30T13:00:00Z"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mustSchedule(t, tt.cron, tt.zone)
			var got []string
			for now := at(t, tt.from); len(got) < len(tt.want); {
				now = s.Next(now)
				got = append(got, now.UTC().Format(time.RFC3339))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBackupDue(t *testing.T) {
	tests := []struct {
		name, cron, zone, last, now string
		due                         bool
		from, next                  string // from is empty for last
	}{
		{"before the time", "0 3 * * *", "", "2026-05-01T03:00:10Z", "2026-05-02T02:59:59Z", false, "", "2026-05-02T03:00:00Z"},
		{"at the time", "0 3 * * *", "", "2026-05-01T03:00:10Z", "2026-05-02T03:00:00Z", true, "", "2026-05-03T03:00:00Z"},
		{"right after it began", "0 3 * * *", "", "2026-05-02T03:00:00Z", "2026-05-02T03:00:00Z", false, "", "2026-05-03T03:00:00Z"},
		{"a week was missed: one backup", "0 3 * * *", "", "2026-05-01T03:00:10Z", "2026-05-08T12:00:00Z", true, "", "2026-05-09T03:00:00Z"},
		{"and then none", "0 3 * * *", "", "2026-05-08T12:00:00Z", "2026-05-08T12:00:01Z", false, "", "2026-05-09T03:00:00Z"},
		{"the clock goes back before the time", "0 3 * * *", "", "2026-05-02T03:00:00Z", "2026-05-02T02:50:00Z", false, "", "2026-05-03T03:00:00Z"},
		{"and comes to it again", "0 3 * * *", "", "2026-05-02T03:00:00Z", "2026-05-02T03:00:00Z", false, "", "2026-05-03T03:00:00Z"},
		{"the clock was years ahead", "0 3 * * *", "", "2036-01-01T00:00:00Z", "2026-05-02T02:50:00Z", false, "2026-05-02T02:50:00Z", "2026-05-02T03:00:00Z"},
		{"the skipped time is not due before", "30 2 * * *", "Europe/Berlin", "2026-03-28T01:30:00Z", "2026-03-29T01:10:00Z", false, "", "2026-03-29T01:30:00Z"},
		{"it is due once", "30 2 * * *", "Europe/Berlin", "2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", true, "", "2026-03-30T00:30:00Z"},
		{"the first of two", "30 2 * * *", "Europe/Berlin", "2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", true, "", "2026-10-26T01:30:00Z"},
		{"not the second", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", false, "", "2026-10-26T01:30:00Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			due, from, next := BackupDue(at(t, tt.last), at(t, tt.now), mustSchedule(t, tt.cron, tt.zone))
			want := tt.from
			if want == "" {
				want = tt.last
			}
			if due != tt.due || !from.Equal(at(t, want)) || !next.Equal(at(t, tt.next)) {
				t.Errorf("due %t from %s, next %s; want %t from %s, next %s", due, from, next.UTC(), tt.due, want, tt.next)
			}
		})
	}
}

func TestBackupIsStale(t *testing.T) {
	tests := []struct {
		name, cron, succeeded, now string
		want                       bool
	}{
		{"one time was missed", "0 3 * * *", "2026-05-01T03:01:00Z", "2026-05-02T23:00:00Z", false},
		{"the second runs", "0 3 * * *", "2026-05-01T03:01:00Z", "2026-05-03T03:00:30Z", false},
		{"two were missed", "0 3 * * *", "2026-05-01T03:01:00Z", "2026-05-03T03:02:00Z", true},
		{"a weekend is not stale", "0 3 * * 1-5", "2026-05-01T03:01:00Z", "2026-05-03T23:00:00Z", false}, // a Friday
		{"Monday and Tuesday were missed", "0 3 * * 1-5", "2026-05-01T03:01:00Z", "2026-05-05T03:00:01Z", true},
		{"every month", "0 0 1 * *", "2026-05-01T00:01:00Z", "2026-06-20T00:00:00Z", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := BackupIsStale(at(t, tt.succeeded), at(t, tt.now), mustSchedule(t, tt.cron, "")); got != tt.want {
				t.Errorf("stale %t, want %t", got, tt.want)
			}
		})
	}
}

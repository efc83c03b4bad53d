package syntax

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Schedule is a parsed BackupSchedule.
type Schedule struct {
	times *cron.SpecSchedule // without a time zone: it works on wall clocks
	zone  *time.Location
}

// ScheduleError is a problem with one field of a BackupSchedule.
type ScheduleError struct{ Field, Problem string }

// ParseSchedule parses a schedule.
func ParseSchedule(s *carav1.BackupSchedule) (Schedule, *ScheduleError) {
	line := strings.TrimSpace(s.GetCron())
	problem := func(field, format string, args ...any) (Schedule, *ScheduleError) {
		return Schedule{}, &ScheduleError{Field: field, Problem: fmt.Sprintf(format, args...)}
	}
	const want = "it must be MINUTE HOUR DAY MONTH WEEKDAY, such as 30 3 * * *, or @hourly, @daily, @weekly or @monthly"
	if strings.Contains(line, "=") { // the parser would take TZ=Europe/Berlin for a time zone
		return problem("cron", "is %q; %s. The time zone belongs into timeZone", text.Short(line), want)
	}
	const fields = cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor
	parsed, err := cron.NewParser(fields).Parse(line)
	times, ok := parsed.(*cron.SpecSchedule) // @every has no time of day
	if err != nil || !ok {
		return problem("cron", "is %q; %s", text.Short(line), want)
	}
	times.Location = time.UTC
	zone := time.UTC
	if name := s.GetTimeZone(); name != "" {
		if zone, err = time.LoadLocation(name); err != nil || name == "Local" {
			return problem("timeZone", "is %q; it must be a time zone such as Europe/Berlin or UTC", text.Short(name))
		}
	}
	out := Schedule{times: times, zone: zone}
	if out.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return problem("cron", "is %q, a time that never comes; correct the day or the month", text.Short(line))
	}
	return out, nil
}

// Next returns the first time of the schedule after t. It reads the schedule on the wall clock of its time zone: a time that
// the change to summer time skips comes when the clock would have shown it without the change, and a time that the clock
// shows twice comes once. It returns zero if there is no next time within about five years.
func (s Schedule) Next(t time.Time) time.Time {
	var next time.Time
	var last time.Time // the last clock time to look at, once there is a next time
	for wall := s.times.Next(wallClock(t.In(s.zone)).Add(-skip)); !wall.IsZero() && (next.IsZero() || wall.Before(last)); wall = s.times.Next(wall) {
		at := s.instant(wall)
		if !at.After(t) || !next.IsZero() && !at.Before(next) {
			continue
		}
		if next.IsZero() {
			last = wall.Add(skip)
		}
		next = at
	}
	return next
}

// skip is more than any clock skips or repeats. Within it, the order of clock times is not the order of instants.
const skip = 3 * time.Hour

// wallClock returns what a clock shows, as if it were UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instant returns when the clock of the time zone shows wall. Of two instants it is the first.
func (s Schedule) instant(wall time.Time) time.Time {
	_, before := wall.Add(-24 * time.Hour).In(s.zone).Zone()
	_, after := wall.Add(24 * time.Hour).In(s.zone).Zone()
	first := wall.Add(-time.Duration(before) * time.Second)
	if wallClock(first.In(s.zone)).Equal(wall) {
		return first.In(s.zone)
	}
	if second := wall.Add(-time.Duration(after) * time.Second); wallClock(second.In(s.zone)).Equal(wall) {
		return second.In(s.zone)
	}
	return first.In(s.zone) // skipped
}

// BackupDue reports whether a backup must begin, and when the next one is due. last is the time up to which the schedule was
// followed: the last scheduled backup began then. Times that were missed since then count once. If the clock was set back,
// times that had a backup already do not count again. If last is more than three intervals ahead, the clock was wrong when
// last was written: then from is now, and otherwise from is last.
func BackupDue(last, now time.Time, s Schedule) (due bool, from, next time.Time) {
	next = s.Next(now)
	if third := s.Next(s.Next(next)); !third.IsZero() && last.After(third) {
		return false, now, next
	}
	first := s.Next(last)
	if first.IsZero() || first.After(now) {
		return false, last, first
	}
	return true, last, next
}

// BackupIsStale reports whether no backup has succeeded for two intervals of the schedule: two scheduled times have passed, and
// as much time as twice the interval between them. succeeded is the time of the last success, or of the beginning.
func BackupIsStale(succeeded, now time.Time, s Schedule) bool {
	first := s.Next(succeeded)
	second := s.Next(first)
	if first.IsZero() || second.IsZero() {
		return false
	}
	return now.After(second) && now.Sub(succeeded) > 2*second.Sub(first)
}

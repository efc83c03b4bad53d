package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

// crowd are hosts that are asked about all the time.
type crowd struct{ noHosts }

func (crowd) News() <-chan struct{} {
	ready := make(chan struct{}, 1)
	ready <- struct{}{}
	return ready
}

// TestQuestionsLeaveRoom: a crowd of unknown hosts causes fewer messages than the server takes, and the first one at once.
func TestQuestionsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := hostNews{of: crowd{}}
		select {
		case <-hosts.changes():
			hosts.sent()
		default:
			t.Fatal("the first question waits")
		}
		const most = 25 // half of what the server takes in a second
		messages, second := 0, time.After(time.Second)
		for ended := false; !ended && messages <= most; {
			select {
			case <-second:
				ended = true
			case <-hosts.changes():
				messages++
				hosts.sent()
			case <-hosts.pause:
				hosts.pause = nil
			}
		}
		if messages == 0 || messages > most {
			t.Errorf("%d messages in a second", messages)
		}
	})
}

package slots

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
)

// ending is a project that stops all its containers, each of which takes so long.
func ending(n int) (*step.Have, []step.Action) {
	have := &step.Have{}
	var todo []step.Action
	for i := range n {
		id := fmt.Sprint(i)
		have.Containers = append(have.Containers, engine.Container{ID: id, State: engine.StateRunning})
		todo = append(todo, step.Action{Kind: step.KindDeleteContainer, ID: id})
	}
	return have, todo
}

// TestProjectsEndOneAfterTheOther: the first project ends long before the last, however many containers stop concurrently.
func TestProjectsEndOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1, 6)
		begun := time.Now()
		ended := make(chan time.Duration, 4)
		for range 4 {
			go func() {
				have, todo := ending(3)
				turns := s.Turns(todo, have)
				each := make(chan struct{})
				for _, x := range todo {
					done, err := turns.Take(t.Context(), x, have)
					if err != nil {
						t.Error(err)
						return
					}
					go func() {
						<-time.After(time.Second)
						done()
						each <- struct{}{}
					}()
				}
				for range todo {
					<-each
				}
				ended <- time.Since(begun)
			}()
		}
		for n, want := range []time.Duration{time.Second, time.Second, 2 * time.Second, 2 * time.Second} {
			if got := <-ended; got != want {
				t.Errorf("project %d was done after %s, want %s", n+1, got, want)
			}
		}
	})
}

// TestAContainerThatTakesItsTimeHoldsUpNobody: a slow stop delays no other stop, even if a project has more containers than
// there are slots.
func TestAContainerThatTakesItsTimeHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1, 2)
		begun := time.Now()
		have, todo := ending(5)
		turns := s.Turns(todo, have)
		for n, x := range todo {
			done, err := turns.Take(t.Context(), x, have)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := time.Since(begun), time.Duration(n/2)*stopTurn; got != want {
				t.Errorf("stop %d began after %s, want %s", n+1, got, want)
			}
			time.AfterFunc(time.Hour, done)
		}
		have, todo = ending(1)
		if _, err := s.Turns(todo, have).Take(t.Context(), todo[0], have); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Turns(todo, have).Take(ctx, todo[0], have); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v where nobody waits any more", err)
		}
		<-time.After(2 * time.Hour)
	})
}

package validate

import (
	"fmt"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// most limits how many problems one check reports. The history has the rest.
const most = 20

// problems collects what is wrong.
type problems struct {
	found   []string
	dropped int
}

func (p *problems) add(format string, args ...any) {
	if len(p.found) < most {
		p.found = append(p.found, fmt.Sprintf(format, args...))
	} else {
		p.dropped++
	}
}

func (p *problems) all() []string {
	if p.dropped > 0 {
		return append(p.found, fmt.Sprintf("and %d more like these", p.dropped))
	}
	return p.found
}

// History returns everything that is wrong with a history, and the verdict on its calls. Checking the calls gives up after a
// time.
func History(h *model.History, limit time.Duration) ([]string, model.Verdict) {
	line, wrong := timelineOf(h.Watches)
	wrong = append(wrong, objects(h, line)...)
	wrong = append(wrong, hosts(line)...)
	wrong = append(wrong, answers(h, line)...)
	wrong = append(wrong, fresh(h, line)...)
	wrong = append(wrong, fenced(h)...)
	verdict := model.Check(calls(h, line), limit)
	if !verdict.OK() {
		wrong = append(wrong, fmt.Sprintf("no order of the calls explains the answers (porcupine says %s)", verdict.Result))
	}
	return wrong, verdict
}

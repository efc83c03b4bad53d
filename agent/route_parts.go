package agent

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxRouteParts limits what the agent keeps of a message Routes that comes in parts, in bytes: several times the routes of 100,000 hosts.
const maxRouteParts = 128 << 20

// routeParts joins the messages Routes of one session.
type routeParts struct {
	joined *carav1.Routes // nil between two messages
	size   int
}

// join returns a whole message, or nil while parts of it are missing.
func (p *routeParts) join(part *carav1.Routes) (*carav1.Routes, error) {
	if p.joined == nil && !part.GetMore() {
		return part, nil
	}
	if p.size += proto.Size(part); p.size > maxRouteParts {
		return nil, fmt.Errorf("the server sends more than %d MiB of routes in one message: this agent connects again", maxRouteParts>>20)
	}
	if p.joined == nil {
		p.joined = &carav1.Routes{}
	}
	proto.Merge(p.joined, part)
	if part.GetMore() {
		return nil, nil //nolint:nilnil // there is no message yet
	}
	whole := p.joined
	whole.More = false
	*p = routeParts{}
	return whole, nil
}

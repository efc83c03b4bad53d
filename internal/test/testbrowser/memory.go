package testbrowser

import (
	"context"
	"fmt"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/memory"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Memory is what a tab keeps after its garbage was collected.
type Memory struct {
	Heap                        float64 // bytes of JavaScript's objects
	Documents, Nodes, Listeners int64
}

// Memory collects the garbage of a tab and returns what is left.
func (tab *Tab) Memory() (m Memory, err error) {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	for range 3 { // what is freed by one collection can free more
		if _, err := chromedp.Call(ctx, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
			return m, fmt.Errorf("collect the garbage of the tab: %w", err)
		}
	}
	heap, err := chromedp.Call(ctx, runtime.GetHeapUsage, cdp.Empty{})
	if err != nil {
		return m, fmt.Errorf("read the size of the tab's heap: %w", err)
	}
	counts, err := chromedp.Call(ctx, memory.GetDOMCounters, cdp.Empty{})
	if err != nil {
		return m, fmt.Errorf("count the nodes of the tab: %w", err)
	}
	return Memory{heap.UsedSize, counts.Documents, counts.Nodes, counts.JsEventListeners}, nil
}

// Package testbrowser drives a real Chromium, for tests of the page and for its pictures.
//
// It has no part in a push: it looks at the page that shows one. Invariants: tabs share nothing, neither cookies nor storage; a
// wait ends with the condition, and its limit is only for a page that hangs; whatever the page's console reports as an error,
// such as a violation of its content security policy, is kept for the test.
package testbrowser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// within ends a wait for a page that hangs.
const within = 2 * time.Minute

// Browser is one Chromium.
type Browser struct {
	ctx   context.Context //nolint:containedctx // the life of the process
	close func()
}

// Start starts Chromium. Its profile is in dir.
func Start(ctx context.Context, program, dir string) (*Browser, error) {
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program), chromedp.UserDataDir(dir), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(within), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("lang", "en"),
	)
	allocator, stop := chromedp.NewExecAllocator(ctx, options...)
	first, closeFirst := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	if err := chromedp.Do(first); err != nil {
		closeFirst()
		stop()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return &Browser{ctx: first, close: func() {
		_ = chromedp.Cancel(first) // waits until the process has ended
		closeFirst()
		stop()
	}}, nil
}

// Close ends Chromium.
func (b *Browser) Close() { b.close() }

// Open starts a Chromium for a test, or skips the test if there is none.
func Open(t testing.TB) *Browser {
	t.Helper()
	testneed.NotShort(t)
	program := testneed.Program(t, "chromium", "chromium")
	dir, err := os.MkdirTemp("", "cara-chromium-") //nolint:usetesting // Chromium may write to it a moment longer than the test lives
	if err != nil {
		t.Fatal(err)
	}
	b, err := Start(context.WithoutCancel(t.Context()), program, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		_ = os.RemoveAll(dir)
	})
	return b
}

// Tab is one tab with cookies of its own.
type Tab struct {
	Ctx   context.Context //nolint:containedctx // the life of the tab
	Close func()

	mu       sync.Mutex
	problems []string
	bytes    map[network.RequestID]float64
	scripts  map[network.RequestID]bool
}

// Tab opens a tab.
func (b *Browser) Tab() (*Tab, error) {
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	tab := &Tab{Ctx: ctx, Close: cancel, bytes: map[network.RequestID]float64{}, scripts: map[network.RequestID]bool{}}
	err := chromedp.Listen(ctx, tab.hear)
	if err == nil {
		_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	}
	if err == nil {
		_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	}
	if err == nil {
		_, err = chromedp.Call(ctx, runtime.Enable, cdp.Empty{})
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	return tab, nil
}

// hear keeps what the console reports, and the sizes of what is loaded.
func (tab *Tab) hear(event any) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		tab.problems = append(tab.problems, "exception: "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Source == log.EntrySourceSecurity {
			tab.problems = append(tab.problems, string(e.Entry.Source)+": "+e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventResponseReceived:
		tab.scripts[e.RequestID] = e.Type == network.ResourceTypeScript
	case *network.EventLoadingFinished:
		tab.bytes[e.RequestID] = e.EncodedDataLength
	}
}

// Problems returns what the console has reported as errors, without those of connections that were lost.
func (tab *Tab) Problems() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(tab.problems), func(p string) bool { return strings.HasPrefix(p, "network:") })
}

// ScriptBytes returns how many bytes of scripts were loaded.
func (tab *Tab) ScriptBytes() (n float64) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for id, script := range tab.scripts {
		if script {
			n += tab.bytes[id]
		}
	}
	return n
}

// Go opens an address.
func (tab *Tab) Go(url string) error {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	err := chromedp.Do(ctx, chromedp.Navigate(url))
	for networkChanged(err) {
		err = chromedp.Do(ctx, chromedp.Navigate(url))
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", url, err)
	}
	return nil
}

// networkChanged reports whether Chromium gave up a request because the machine has got or lost a network, as it does whenever
// another test starts a container.
func networkChanged(err error) bool {
	return err != nil && strings.Contains(err.Error(), "net::ERR_NETWORK_CHANGED")
}

// reload loads the document again as a person does. A script's reload of an error page would count as a request from another
// site, and would be sent without the session cookie.
func (tab *Tab) reload() error {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	_, err := chromedp.Call(ctx, page.Reload, page.ReloadParams{})
	return err
}

// Eval evaluates an expression and stores its value in out, unless that is nil.
func (tab *Tab) Eval(expression string, out any) error {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[any](expression))
	if err != nil || out == nil {
		return err
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// Until waits until an expression is true.
func (tab *Tab) Until(expression string) error {
	limit := time.NewTimer(within)
	defer limit.Stop()
	for {
		var ok bool
		err := tab.Eval("Boolean("+expression+")", &ok)
		if ok {
			return nil
		}
		if tab.Eval(`location.protocol === "chrome-error:"`, &ok) == nil && ok { // a click ended so: see networkChanged
			_ = tab.reload()
		}
		select {
		case <-limit.C:
			var body string
			_ = tab.Eval("document.body.innerText", &body)
			return errors.Join(fmt.Errorf("the page does not get to %s; it shows:\n%.4000s", expression, body), err)
		case <-tab.Ctx.Done():
			return tab.Ctx.Err()
		case <-time.After(30 * time.Millisecond): // a document that is being replaced cannot be asked
		}
	}
}

// Shows waits until the element at a CSS selector shows a text.
func (tab *Tab) Shows(selector, text string) error {
	return tab.Until(fmt.Sprintf("document.querySelector(%q)?.textContent.includes(%q)", selector, text))
}

// Click waits for an element and clicks it.
func (tab *Tab) Click(selector string) error {
	if err := tab.Until(fmt.Sprintf("document.querySelector(%q)", selector)); err != nil {
		return err
	}
	return tab.Eval(fmt.Sprintf("document.querySelector(%q).click()", selector), nil)
}

// Type waits for an input, focuses it and types a text as a keyboard does.
func (tab *Tab) Type(selector, text string) error {
	if err := tab.Until(fmt.Sprintf("document.querySelector(%q)", selector)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	if err := tab.Eval(fmt.Sprintf("document.querySelector(%q).focus()", selector), nil); err != nil {
		return err
	}
	return chromedp.Do(ctx, chromedp.KeyEvent(text))
}

// Keys types on the keyboard, into what has the focus. "\t" is the tabulator key and "\r" is Enter.
func (tab *Tab) Keys(keys string) error {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	return chromedp.Do(ctx, chromedp.KeyEvent(keys))
}

// Press presses one key that types nothing by itself, as a browser reports it when the page handles the key.
func (tab *Tab) Press(key string, ctrl bool) error {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	modifiers := int64(0)
	if ctrl {
		modifiers = 2
	}
	for _, typ := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp} {
		if _, err := chromedp.Call(ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: typ, Key: key, Modifiers: modifiers}); err != nil {
			return fmt.Errorf("press %s: %w", key, err)
		}
	}
	return nil
}

// Login logs in with a token. base is the server's address.
func (tab *Tab) Login(base, token string) error {
	return errors.Join(tab.Go(base+"/ui/login"), tab.Type("#token", token), tab.Click("button.main"), tab.Until(`document.querySelector("nav a[aria-current]") && document.readyState === "complete"`))
}

// Picture returns a picture of the whole document as PNG.
func (tab *Tab) Picture(width, height int64, dark bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(tab.Ctx, within)
	defer cancel()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err == nil {
		err = chromedp.Do(ctx, chromedp.EmulateViewport(width, height))
	}
	if err != nil {
		return nil, fmt.Errorf("set the size and the colours: %w", err)
	}
	return chromedp.Run(ctx, chromedp.CaptureScreenshot())
}

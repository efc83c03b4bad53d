package ingress

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/internal/text"
)

// page answers in the service's place: a few words of plain text, or for a program that asks for JSON and for no text
// the same as a problem of RFC 9457.
func page(w http.ResponseWriter, r *http.Request, status int, text string) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	title := http.StatusText(status)
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "json") && !strings.Contains(accept, "text/") {
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"title": title, "status": status, "detail": text}) // a client that left needs no answer
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d %s\n\n%s\n", status, title, text)
}

// quoteHost keeps what a client sent from being long or strange in an answer.
func quoteHost(host string) string { return strconv.QuoteToASCII(text.Clip(host, maxHost)) }

// maxHost is how long a host name can be.
const maxHost = 253

package testregistry

import (
	"context"
	"crypto/subtle"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is a fault of the registry. The zero value has no fault.
type Fault struct {
	// Status is the status of every answer, in the registry protocol's error form: 404, 429, 500, 503.
	Status int
	// RetryAfter is sent with Status, in whole seconds rounded up.
	RetryAfter time.Duration
	// BytesPerSecond limits the speed of blobs, not of manifests.
	BytesPerSecond int
	// Hang accepts requests and never answers.
	Hang bool
	// HangBlobs sends half of a blob, then nothing more.
	HangBlobs bool
	// Garbage answers manifests and blobs with an HTML page, as a captive portal does.
	Garbage bool
	// GarbageBlobs changes a byte of each blob.
	GarbageBlobs bool
	// First limits Status, Hang and HangBlobs to that many requests; 0 means all. The ping of /v2/ does not count, because
	// engines ignore its failure.
	First int
}

// Set sets the fault of all later requests.
func (r *Registry) Set(fault Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

// nextFault returns the fault for the next request, and decreases First.
func (r *Registry) nextFault(isBlob, isPing bool) Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	fault := r.fault
	if fault.First > 0 && isPing {
		return Fault{}
	}
	meets := fault.Status != 0 || fault.Hang || (fault.HangBlobs && isBlob)
	if fault.First > 0 && meets {
		r.fault.First--
		if r.fault.First == 0 {
			r.fault = Fault{BytesPerSecond: fault.BytesPerSecond}
		}
	}
	return fault
}

func (r *Registry) admits(request *http.Request, isBlob bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	user, password, _ := request.BasicAuth()
	admitted := r.user == "" || equal(user, password, r.user, r.password)
	if token := r.token(); token != "" {
		admitted = r.user == "" || request.Header.Get("Authorization") == "Bearer "+token
	}
	if admitted && isBlob {
		r.count()
	}
	return admitted
}

func equal(user, password, wantUser, wantPassword string) bool {
	return subtle.ConstantTimeCompare([]byte(user+"\x00"+password), []byte(wantUser+"\x00"+wantPassword)) == 1
}

func (r *Registry) frontDoor(w http.ResponseWriter, request *http.Request) {
	isBlob := request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/")
	fault := r.nextFault(isBlob, request.URL.Path == "/v2/")
	switch {
	case request.URL.Path == tokenPath:
		r.giveToken(w, request)
		return
	case fault.Hang:
		<-request.Context().Done()
		return
	case fault.Status != 0:
		if fault.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(fault.RetryAfter.Seconds()))))
		}
		refuse(w, fault.Status)
		return
	case !r.admits(request, isBlob):
		w.Header().Set("WWW-Authenticate", r.challenge(request.Host))
		refuse(w, http.StatusUnauthorized)
		return
	}
	if fault.Garbage && request.URL.Path != "/v2/" {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><body>Please log in to the hotel's network</body></html>")
		return
	}
	if isBlob && fault.GarbageBlobs {
		w = &spoiledWriter{ResponseWriter: w}
	}
	if isBlob && (fault.BytesPerSecond > 0 || fault.HangBlobs) {
		w = &slowWriter{ResponseWriter: w, ctx: request.Context(), perSecond: fault.BytesPerSecond, hang: fault.HangBlobs}
	}
	r.store.ServeHTTP(w, request)
}

// refuse answers with an error of the distribution specification.
func refuse(w http.ResponseWriter, status int) {
	code := map[int]string{
		http.StatusUnauthorized:    "UNAUTHORIZED",
		http.StatusForbidden:       "DENIED",
		http.StatusNotFound:        "NAME_UNKNOWN",
		http.StatusTooManyRequests: "TOOMANYREQUESTS",
	}[status]
	if code == "" {
		code = "UNKNOWN"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"test registry: %s"}]}`, code, http.StatusText(status))
}

// spoiledWriter changes the first byte that is written.
type spoiledWriter struct {
	http.ResponseWriter
	spoiled bool
}

// Write writes all other bytes unchanged.
func (w *spoiledWriter) Write(p []byte) (int, error) {
	if !w.spoiled && len(p) > 0 {
		p = append([]byte{p[0] ^ 0xFF}, p[1:]...)
		w.spoiled = true
	}
	return w.ResponseWriter.Write(p)
}

// slowWriter sends a blob at a limited speed, or half of it.
type slowWriter struct {
	http.ResponseWriter
	ctx       context.Context //nolint:containedctx // the request's context, during one Write
	perSecond int
	hang      bool
	sent      int
}

// Write sends and flushes pieces of a tenth of a second or of one byte, so that the client sees steady progress.
func (w *slowWriter) Write(p []byte) (int, error) {
	length, err := strconv.Atoi(w.Header().Get("Content-Length"))
	if err != nil {
		return 0, fmt.Errorf("slow a blob: it has no length: %w", err)
	}
	piece, every := len(p), 100*time.Millisecond
	if w.perSecond > 0 {
		piece = max(w.perSecond/10, 1)
		every = max(every, time.Second/time.Duration(w.perSecond)) // a piece of one byte may take longer
	}
	written := 0
	for written < len(p) {
		end := min(written+piece, len(p))
		if w.hang && w.sent+end-written > length/2 {
			end = max(written, length/2-w.sent+written)
		}
		n, err := w.ResponseWriter.Write(p[written:end])
		written, w.sent = written+n, w.sent+n
		if err != nil {
			return written, err
		}
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return written, err
		}
		if w.hang && w.sent >= length/2 {
			<-w.ctx.Done()
			return written, w.ctx.Err()
		}
		if w.perSecond > 0 {
			if err := pause(w.ctx, every); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

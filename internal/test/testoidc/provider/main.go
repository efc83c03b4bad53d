// Command provider is an OpenID provider for tests: the example of github.com/zitadel/oidc, which implements the protocol, with a
// control endpoint that changes what it says about its one user, and lets it make the mistakes that a client must notice.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// control is what a test sets.
type control struct {
	Groups []string
	// Subject replaces the subject of tokens that are made from now on.
	Subject string
	// Seconds is the life of an ID token; negative makes expired ones.
	Seconds int
	// Nonce replaces the nonce of logins that begin from now on. OtherClient makes tokens for another client.
	Nonce       string
	OtherClient bool
	// Rotate makes a new key. The old one is gone.
	Rotate bool
	// Refuse refuses refresh tokens.
	Refuse bool
	// Down answers everything with 503.
	Down bool
	// Hold leaves requests with refresh tokens without an answer until their client has gone. The tokens are not used.
	Hold bool
}

type store struct {
	*storage.Storage
	mu  sync.Mutex
	now control
	key *rsa.PrivateKey
	id  string
}

func (s *store) state() control {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *store) set(c control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = c
	if c.Rotate || s.key == nil {
		s.key, _ = rsa.GenerateKey(rand.Reader, 2048)
		s.id = fmt.Sprint("k", time.Now().UnixNano())
	}
}

type signing struct {
	id  string
	key any
}

func (k signing) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signing) Algorithm() jose.SignatureAlgorithm          { return jose.RS256 }
func (k signing) Key() any                                    { return k.key }
func (k signing) ID() string                                  { return k.id }
func (k signing) Use() string                                 { return "sig" }

func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return signing{s.id, s.key}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []op.Key{signing{s.id, &s.key.PublicKey}}, nil
}

// client has ID tokens with all claims and of the life that the test sets.
type client struct {
	op.Client
	store *store
}

func (c client) IDTokenLifetime() time.Duration {
	return time.Duration(c.store.state().Seconds) * time.Second
}
func (client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (client) IsScopeAllowed(string) bool           { return true }
func (client) DevMode() bool                        { return true }

func (c client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c, s}, nil
}

func (s *store) CreateAuthRequest(ctx context.Context, r *oidc.AuthRequest, user string) (op.AuthRequest, error) {
	if nonce := s.state().Nonce; nonce != "" {
		r.Nonce = nonce
	}
	return s.Storage.CreateAuthRequest(ctx, r, user)
}

func (s *store) TokenRequestByRefreshToken(ctx context.Context, token string) (op.RefreshTokenRequest, error) {
	if s.state().Hold {
		<-ctx.Done()
		return nil, ctx.Err() // the token has not been used
	}
	if s.state().Refuse {
		return nil, op.ErrInvalidRefreshToken
	}
	return s.Storage.TokenRequestByRefreshToken(ctx, token)
}

func (s *store) SetUserinfoFromScopes(ctx context.Context, info *oidc.UserInfo, user, client string, scopes []string) error {
	err := s.Storage.SetUserinfoFromScopes(ctx, info, user, client, scopes)
	info.AppendClaims("groups", s.state().Groups)
	return err
}

func (s *store) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	err := s.Storage.SetUserinfoFromScopes(context.Background(), info, r.GetSubject(), r.GetClientID(), scopes)
	info.Subject, info.Email, info.EmailVerified = cmp.Or(s.state().Subject, r.GetSubject()), "ada@example.com", true
	info.AppendClaims("groups", s.state().Groups)
	return err
}

// other makes a request look like one of another client.
func (s *store) other(r *http.Request) {
	if !s.state().OtherClient {
		return
	}
	r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "client_id=cara", "client_id=other")
	if r.Method == http.MethodPost && r.ParseForm() == nil && r.Form.Get("client_id") == "cara" {
		r.Form.Set("client_id", "other")
		r.PostForm.Set("client_id", "other")
	}
}

func main() {
	listen := flag.String("listen", "", "address")
	issuer := flag.String("issuer", "", "URL")
	redirect := flag.String("redirect", "", "of the client")
	secret := flag.String("secret", "", "of the client, which is a public one without it")
	cert, key := flag.String("cert", "", "of TLS"), flag.String("key", "", "of TLS")
	flag.Parse()
	users := map[string]*storage.User{"ada": {ID: "ada", Username: "ada", Password: "pw", FirstName: "Ada", Email: "ada@example.com", EmailVerified: true}}
	file, err := os.CreateTemp("", "users")
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(file).Encode(users); err != nil {
		log.Fatal(err)
	}
	known, err := storage.StoreFromFile(file.Name())
	_ = os.Remove(file.Name())
	if err != nil {
		log.Fatal(err)
	}
	redirects := strings.Split(*redirect, ",")
	cara := storage.NativeClient("cara", redirects...)
	if *secret != "" {
		cara = storage.WebClient("cara", *secret, redirects...) // with client_secret_basic
	}
	storage.RegisterClients(cara, storage.NativeClient("other", redirects...))
	s := &store{Storage: storage.NewStorage(known)}
	s.set(control{Groups: []string{"dev"}, Seconds: 3600})
	provider := exampleop.SetupServer(*issuer, s, slog.New(slog.NewTextHandler(os.Stderr, nil)), false)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/control":
			var c control
			if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.set(c)
		case s.state().Down:
			http.Error(w, "down", http.StatusServiceUnavailable)
		default:
			s.other(r)
			provider.ServeHTTP(w, r)
		}
	})
	if *cert != "" {
		log.Fatal(http.ListenAndServeTLS(*listen, *cert, *key, handler))
	}
	log.Fatal(http.ListenAndServe(*listen, handler))
}

package git

import (
	"cmp"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

// address is the address of a repository.
type address struct {
	scheme string // https, http, ssh or file
	host   string // with the port for ssh
	user   string // ssh only
	path   string
	raw    string // path as written in the URL, with percent-encoding; http only
}

// parseAddress parses the forms that git accepts: URLs, user@host:path, and absolute local paths.
func parseAddress(raw string) (address, error) {
	if filepath.IsAbs(raw) {
		return address{scheme: "file", path: filepath.Clean(raw)}, nil
	}
	if !strings.Contains(raw, "://") {
		return parseSCP(raw)
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes the URL, which may hold a password.
		return address{}, sources.Human(api.ReasonInvalidSpec, "spec.git.url is not a valid URL; see https://host/team/repo.git")
	}
	a := address{scheme: u.Scheme, host: u.Host, path: u.Path}
	if _, has := u.User.Password(); has {
		return address{}, sources.Human(api.ReasonInvalidSpec,
			"spec.git.url holds a password, which every reader of the source would see; put it in a Secret and name it in spec.git.secretRef")
	}
	switch u.Scheme {
	case "file":
		return fileAddress(u)
	case "http", "https":
		if u.User.Username() != "" {
			return address{}, sources.Human(api.ReasonInvalidSpec,
				"spec.git.url holds a user name; put it in a Secret with its password and name it in spec.git.secretRef")
		}
		a.raw = u.EscapedPath()
	case "ssh":
		a.user = cmp.Or(u.User.Username(), "git")
		a.host = withPort(u.Host, "22")
		if strings.HasPrefix(a.path, "/~") {
			a.path = a.path[1:] // the server's shell expands ~ and ~user; git omits the slash
		}
	default:
		return address{}, sources.Human(api.ReasonInvalidSpec,
			"spec.git.url: scheme %q is not one of https, http, ssh, file", u.Scheme)
	}
	if u.Hostname() == "" || strings.Trim(a.path, "/") == "" {
		return address{}, sources.Human(api.ReasonInvalidSpec, "spec.git.url names no host or no repository; see https://host/team/repo.git")
	}
	return a, nil
}

// fileAddress returns the address of a repository on this machine.
func fileAddress(u *url.URL) (address, error) {
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
		return address{}, sources.Human(api.ReasonInvalidSpec, "spec.git.url: a file URL has three slashes and an absolute path: file:///srv/git/repo.git")
	}
	return address{scheme: u.Scheme, path: filepath.Clean(u.Path)}, nil
}

func parseSCP(raw string) (address, error) {
	login, path, ok := strings.Cut(raw, ":")
	if open := strings.Index(login, "["); open >= 0 { // [::1]:path or [host:port]:path
		end := strings.Index(raw, "]:")
		if ok = end > open; ok {
			login, path = raw[:end+1], raw[end+2:]
		}
	}
	user, host, hasUser := strings.Cut(login, "@")
	if !hasUser {
		user, host = "git", login
	}
	if inner := strings.Trim(host, "[]"); inner != host && strings.Count(inner, ":") == 1 {
		host = inner
	}
	if !ok || host == "" || user == "" || path == "" || strings.ContainsAny(login, "/ ") {
		return address{}, sources.Human(api.ReasonInvalidSpec,
			"spec.git.url must be like https://host/repo.git, ssh://user@host/repo.git, user@host:repo.git or /local/path")
	}
	return address{scheme: "ssh", host: withPort(host, "22"), user: user, path: path}, nil
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// String returns the address without user and query, safe to display.
func (a address) String() string {
	switch a.scheme {
	case "file":
		return a.path
	case "ssh":
		if !strings.HasPrefix(a.path, "/") {
			return "ssh://" + a.host + "/" + a.path
		}
		return "ssh://" + a.host + a.path
	}
	return a.scheme + "://" + a.host + a.raw
}

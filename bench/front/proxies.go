package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// process is a proxy or the backend.
type process struct {
	name string
	at   map[string]string // addresses by kind: http, https, tcp
	cmd  *exec.Cmd
	in   io.WriteCloser // its end ends the processes of this program; nil for others
}

// end ends the process and those that it has started.
func (p *process) end() {
	if p.in != nil {
		_ = p.in.Close()
	} else {
		_ = p.cmd.Process.Signal(os.Interrupt)
	}
	_ = p.cmd.Wait() // it was interrupted
}

// start starts a process of this program.
func (o options) start(ctx context.Context, role string, many int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-role", role, "-dir", o.dir, "-many", strconv.Itoa(many), "-idle", strconv.Itoa(o.idle), "-big", strconv.FormatInt(o.size, 10),
		"-profiles", o.profiles)
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p := &process{name: role, cmd: cmd, in: in}
	if p.at, err = addresses(out); err != nil {
		p.end()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return p, nil
}

// proxies starts all proxies that are installed and wanted, with further hosts.
func (o options) proxies(ctx context.Context, many int) (all []*process, err error) {
	for _, one := range []struct {
		name, program string
		start         func(ctx context.Context, program string, many int) (*process, error)
	}{
		{"cara", "", nil}, {"caddy", "caddy", o.caddy}, {"nginx", "nginx", o.nginx}, {"haproxy", "haproxy", o.haproxy}, {"bare", "", nil},
	} {
		if !o.wanted(one.name) || one.name == "haproxy" && many > 0 {
			continue
		}
		var p *process
		if one.start == nil {
			p, err = o.start(ctx, one.name, many)
		} else {
			path, missing := exec.LookPath(one.program)
			if missing != nil {
				if path = "/usr/sbin/" + one.program; !exists(path) {
					fmt.Fprintf(os.Stderr, "front: %s is not installed and is left out\n", one.program)
					continue
				}
			}
			p, err = one.start(ctx, path, many)
		}
		if err != nil {
			endAll(all)
			return nil, err
		}
		p.name = one.name
		all = append(all, p)
	}
	return all, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func endAll(all []*process) {
	for _, p := range all {
		p.end()
	}
}

// foreign starts another program, after its configuration was written, and waits until it accepts connections.
func (o options) foreign(ctx context.Context, at map[string]string, file, config, program string, args ...string) (*process, error) {
	path := filepath.Join(o.dir, file)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, append(args, path)...)
	cmd.Env = append(os.Environ(), "HOME="+o.dir, "XDG_DATA_HOME="+o.dir, "XDG_CONFIG_HOME="+o.dir)
	cmd.Dir = o.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // if nginx is killed, its workers stay
	log, err := os.Create(path + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{at: at, cmd: cmd}
	for _, address := range at {
		if err := reachable(ctx, address); err != nil {
			p.end()
			text, _ := os.ReadFile(path + ".log")
			return nil, fmt.Errorf("start %s: %w: %s", program, err, text)
		}
	}
	return p, nil
}

func reachable(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// places chooses free addresses for a proxy, and returns where the backend is.
func (o options) places(kinds ...string) (at map[string]string, web, raw string, err error) {
	at = map[string]string{}
	for _, kind := range kinds {
		if at[kind], err = testcluster.FreeAddress(); err != nil {
			return nil, "", "", err
		}
	}
	web, raw, err = o.backends()
	return at, web, raw, err
}

func (o options) nginx(ctx context.Context, program string, many int) (*process, error) {
	at, web, _, err := o.places("http", "https")
	if err != nil {
		return nil, err
	}
	const location = "location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; " +
		"proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_max_temp_file_size 0; }"
	var c strings.Builder
	fmt.Fprintf(&c, "daemon off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.error; worker_processes auto; worker_rlimit_nofile %[2]d;\n", o.dir, 4*o.idle+2000)
	fmt.Fprintf(&c, "events { worker_connections %d; }\nhttp { access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; server_names_hash_max_size 65536;\n", 4*o.idle+1000)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&c, "%s_temp_path %s/%s;\n", kind, o.dir, kind)
	}
	fmt.Fprintf(&c, "upstream backend { server %s; keepalive 256; keepalive_requests 1000000000; }\n", web)
	fmt.Fprintf(&c, "server { listen %s; server_name %s; %s }\n", at["http"], plainHost, location)
	fmt.Fprintf(&c, "server { listen %s ssl http2; server_name %s; ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3; %s }\n",
		at["https"], host, filepath.Join(o.dir, chainFile), filepath.Join(o.dir, keyFile), location)
	for n := range many {
		fmt.Fprintf(&c, "server { listen %s; server_name %s; %s }\n", at["http"], hostNumber(n), location)
	}
	c.WriteString("}\n")
	return o.foreign(ctx, at, fmt.Sprintf("nginx-%d.conf", many), c.String(), program, "-p", o.dir, "-c")
}

func (o options) caddy(ctx context.Context, program string, many int) (*process, error) {
	at, web, _, err := o.places("http", "https")
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	route := func(name string) object {
		return object{"match": []object{{"host": []string{name}}}, "terminal": true, "handle": []object{{
			"handler": "reverse_proxy", "upstreams": []object{{"dial": web}},
			"transport": object{"protocol": "http", "compression": false},
		}}}
	}
	routes := []object{route(plainHost)}
	for n := range many {
		routes = append(routes, route(hostNumber(n)))
	}
	server := func(address string, routes []object) object {
		return object{"listen": []string{address}, "automatic_https": object{"disable": true}, "routes": routes, "protocols": []string{"h1", "h2"}}
	}
	secure := server(at["https"], []object{route(host)})
	secure["tls_connection_policies"] = []object{{}}
	config, err := json.Marshal(object{
		"admin": object{"disabled": true}, "logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{
			"http": object{"servers": object{"plain": server(at["http"], routes), "secure": secure}},
			"tls": object{"certificates": object{"load_files": []object{{
				"certificate": filepath.Join(o.dir, chainFile), "key": filepath.Join(o.dir, keyFile),
			}}}},
		},
	})
	if err != nil {
		return nil, err
	}
	return o.foreign(ctx, at, fmt.Sprintf("caddy-%d.json", many), string(config), program, "run", "--config")
}

func (o options) haproxy(ctx context.Context, program string, _ int) (*process, error) {
	at, _, raw, err := o.places("tcp")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n option splice-auto\nlisten tcp\n bind %s\n server b %s\n",
		at["tcp"], raw)
	return o.foreign(ctx, at, "haproxy.cfg", config, program, "-db", "-f")
}

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// clients is how many connections requests are sent on side by side, each the next as soon as it has its answer.
const clients = 16

// pressed is what came of many requests.
type pressed struct {
	requests int
	rate     float64 // a second
	p99      time.Duration
}

// press sends requests for so long. A client is a few lines over a socket: what it costs is not the proxy's.
func press(ctx context.Context, address string, long time.Duration) (pressed, error) {
	took := make([][]time.Duration, clients)
	begun := time.Now()
	err := each(clients, clients, func(i int) error {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(begun.Add(long + patience)); err != nil {
			return err
		}
		r := bufio.NewReader(conn)
		for time.Since(begun) < long && ctx.Err() == nil {
			sent := time.Now()
			if err := ask(conn, r); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(sent))
		}
		return ctx.Err()
	})
	if err != nil {
		return pressed{}, fmt.Errorf("send requests to %s: %w", address, err)
	}
	elapsed := time.Since(begun)
	all := slices.Concat(took...)
	slices.Sort(all)
	return pressed{len(all), float64(len(all)) / elapsed.Seconds(), all[len(all)*99/100]}, nil
}

func ask(conn net.Conn, r *bufio.Reader) error {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+webHost+"\r\nUser-Agent: peers\r\nAccept: */*\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

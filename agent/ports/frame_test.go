package ports

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// TestFrames: datagrams keep their limits, also if the bytes arrive one by one.
func TestFrames(t *testing.T) {
	long := bytes.Repeat([]byte("x"), maxDatagram)
	for name, tt := range map[string]struct {
		in   string
		want []string
		err  error
	}{
		"nothing":             {"", nil, nil},
		"one":                 {"\x00\x02ab", []string{"ab"}, nil},
		"an empty one":        {"\x00\x00\x00\x01a", []string{"", "a"}, nil},
		"the longest one":     {"\xff\xe3" + string(long) + "\x00\x01a", []string{string(long), "a"}, nil},
		"too long":            {"\x00\x01a\xff\xe4" + string(long) + "x", []string{"a"}, errTooLong},
		"ends in the length":  {"\x00\x01a\x00", []string{"a"}, io.ErrUnexpectedEOF},
		"ends after a length": {"\x00\x01", nil, io.ErrUnexpectedEOF},
		"ends in a datagram":  {"\x00\x03ab", nil, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			for _, in := range []io.Reader{bytes.NewReader([]byte(tt.in)), iotest.OneByteReader(bytes.NewReader([]byte(tt.in)))} {
				var got []string
				err := readFrames(in, func(frame []byte) {
					if !bytes.Equal(frame, frameOf(frame[frameHeader:])) {
						t.Errorf("the frame of %d bytes has another length", len(frame))
					}
					got = append(got, string(frame[frameHeader:]))
				})
				if !errors.Is(err, tt.err) || !slices.Equal(got, tt.want) {
					t.Errorf("got %d datagrams and %v, want %d and %v", len(got), err, len(tt.want), tt.err)
				}
			}
		})
	}
}

// FuzzFrames: what was framed comes back, however it was cut, and no bytes do harm.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{}, []byte{}, []byte{0})
	f.Add([]byte("a"), []byte("bc"), []byte{0, 1})
	f.Add(make([]byte, maxDatagram), []byte("b"), []byte{255, 255})
	f.Fuzz(func(t *testing.T, one, two, rest []byte) {
		one, two = one[:min(len(one), maxDatagram)], two[:min(len(two), maxDatagram)]
		stream := slices.Concat(frameOf(one), frameOf(two), rest)
		var got [][]byte
		err := readFrames(bytes.NewReader(stream), func(frame []byte) { got = append(got, bytes.Clone(frame)) })
		if len(got) < 2 || !bytes.Equal(got[0][frameHeader:], one) || !bytes.Equal(got[1][frameHeader:], two) {
			t.Fatalf("%d datagrams came back", len(got))
		}
		if back := slices.Concat(got...); err == nil && !bytes.Equal(back, stream) {
			t.Errorf("%d bytes came back of %d without an error", len(back), len(stream))
		}
	})
}

package etcd

import (
	"fmt"
	"testing"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store/storetest"
)

// BenchmarkCommit measures single writes of 1 KiB on one and on three members, whose disk all three share here.
func BenchmarkCommit(b *testing.B) {
	for _, members := range []int{1, 3} {
		c := testetcd.Start(b, testetcd.Config{Members: members})
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("store/%d members/%d", members, writers), func(b *testing.B) { storetest.Writes(b, openTest(b, c, Config{}), writers) })
		}
	}
}

func BenchmarkRead(b *testing.B) {
	storetest.Reads(b, openTest(b, testetcd.Start(b, testetcd.Config{}), Config{}))
}

func BenchmarkWatch(b *testing.B) {
	c := testetcd.Start(b, testetcd.Config{})
	for _, watchers := range []int{1, 100} {
		b.Run(fmt.Sprintf("fan-out/%d", watchers), func(b *testing.B) { storetest.FanOut(b, openTest(b, c, Config{}), watchers) })
	}
}

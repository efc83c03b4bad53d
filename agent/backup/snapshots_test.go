package backup

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
)

func TestChooseSnapshot(t *testing.T) {
	at := func(hour int, id string, tags ...string) listed {
		return listed{ID: id + strings.Repeat("0", 64-len(id)), Time: time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC), Tags: tags}
	}
	shop := []string{"project=shop", "volume=db", "uid=1"}
	list := []listed{
		at(3, "aaaaaaaa3", shop...),
		at(1, "aaaaaaaa1", shop...),
		at(4, "bbbbbbbb4", append([]string{"pass=first"}, shop...)...),
		at(5, "cccccccc5", "project=other", "volume=db"),
		at(6, "dddddddd6", "project=shop", "volume=media"),
		at(7, "eeeeeeee7"),
		at(8, "ffffffff8", "project=shop2", "volume=db2", "uid=project=shop", "uid=volume=db"),
	}
	tests := []struct {
		name, snapshot string
		list           []listed
		want           string // begin of the id
		says           string
	}{
		{"the newest", "", list, "aaaaaaaa3", ""},
		{"the newest by its name", "latest", list, "aaaaaaaa3", ""},
		{"by a short id", "aaaaaaaa1", list, "aaaaaaaa1", ""},
		{"by a long id", list[1].ID, list, "aaaaaaaa1", ""},
		{"an id of two", "aaaaaaaa", list, "", "2 snapshots"},
		{"a first pass", "bbbbbbbb", list, "", "first pass"},
		{"another project's", "cccccccc", list, "", "no snapshot cccccccc of volume db of project shop"},
		{"another volume's", "dddddddd", list, "", "no snapshot dddddddd"},
		{"without tags", "eeeeeeee", list, "", "no snapshot eeeeeeee"},
		{"with similar tags", "ffffffff", list, "", "no snapshot ffffffff"},
		{"no id", "--target=/", list, "", "no id"},
		{"only first passes", "", list[2:3], "", "no snapshot of volume db"},
		{"an empty repository", "", nil, "", "no snapshot of volume db of project shop"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, f := chooseSnapshot(tt.list, Restoration{Project: "shop", Volume: "db", Snapshot: tt.snapshot})
			if tt.says != "" {
				if f == nil || f.Reason != api.ReasonSnapshotNotFound || !strings.Contains(f.Message, tt.says) {
					t.Errorf("%v, failure %v, want one that says %q", got, f, tt.says)
				}
				return
			}
			if f != nil || !strings.HasPrefix(got.ID, tt.want) {
				t.Errorf("%v, failure %v, want %s", got, f, tt.want)
			}
		})
	}
}

func TestParseRestic(t *testing.T) {
	nodes := parseNodes([]byte(`{"time":"2026-11-26T18:44:58Z","id":"686112bf","struct_type":"snapshot"}
{"name":"_data","type":"dir","path":"/_data","uid":99,"gid":98,"mode":2148532712,"struct_type":"node"}
`))
	if diff := cmp.Diff([]node{{Struct: "node", Path: "/_data", Kind: "dir", UID: 99, GID: 98, Mode: 2148532712}}, nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	list, err := parseListed([]byte(`[{"time":"2026-11-26T18:44:58Z","tags":["a"],"id":"686112bf847e"},{"id":"--x"}]`))
	if want := []listed{{ID: "686112bf847e", Time: time.Date(2026, 11, 26, 18, 44, 58, 0, time.UTC), Tags: []string{"a"}}}; err != nil || !cmp.Equal(want, list) {
		t.Errorf("snapshots %v, %v, want %v", list, err, want)
	}
	if _, err := parseListed([]byte("Fatal")); err == nil {
		t.Error("no JSON is no list")
	}
	for text, want := range map[string]int64{`{"total_size":3,"total_file_count":6}`: 3, `{"total_size":0}`: 0} {
		if got, err := parseSize([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{`{}`, `{"total_size":-1}`, ``} {
		if got, err := parseSize([]byte(text)); err == nil {
			t.Errorf("%s: %d, want an error", text, got)
		}
	}
}

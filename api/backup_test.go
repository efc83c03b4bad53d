package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestBackupProblem(t *testing.T) {
	base := func(repository string, more ...string) map[string][]byte {
		values := map[string][]byte{"repository": []byte(repository), "password": []byte("hunter2hunter2")}
		for i := 0; i < len(more); i += 2 {
			values[more[i]] = []byte(more[i+1])
		}
		return values
	}
	ssh := []string{"ssh-privatekey", "k", "known_hosts", "h"}
	tests := []struct {
		name   string
		values map[string][]byte
		want   string // a part of the problem; empty for none
	}{
		{"a directory", base("/srv/backups/shop\n"), ""},
		{"a directory with dots", base("/srv/backups/../../etc"), "must be a path below"},
		{"a relative directory", base("backups"), "must be a path below"},
		{"s3", base("s3:https://s3.example.com/bucket", "AWS_ACCESS_KEY_ID", "a", "AWS_SECRET_ACCESS_KEY", "b"), ""},
		{"s3 with the credentials of the machine", base("s3:https://s3.example.com/bucket"), "AWS_ACCESS_KEY_ID is missing"},
		{"s3 with half of them", base("s3:s3.example.com/b", "AWS_ACCESS_KEY_ID", "a", "AWS_SECRET_ACCESS_KEY", " \n"), "AWS_SECRET_ACCESS_KEY is missing"},
		{"b2", base("b2:bucket:path", "B2_ACCOUNT_ID", "a"), "B2_ACCOUNT_KEY is missing"},
		{"azure", base("azure:container:/"), "AZURE_ACCOUNT_NAME is missing"},
		{"rest", base("rest:https://user:secret@backup.example.com/shop"), ""},
		{"rest without a host", base("rest:/etc"), "must be a path below"},
		{"sftp", base("sftp:backup@nas:/volume1/cara", ssh...), ""},
		{"sftp with a port", base("sftp://backup@nas:2222//volume1/cara", ssh...), ""},
		{"sftp without a key", base("sftp:backup@nas:/x", "known_hosts", "h"), "ssh-privatekey is missing"},
		{"sftp without host keys", base("sftp:backup@nas:/x", "ssh-privatekey", "k"), "known_hosts is missing"},
		{"sftp with an option of ssh as the user", base("sftp:-oProxyCommand=evil@nas:/x", ssh...), "sftp:USER@HOST"},
		{"sftp with an option of ssh as the host", base("sftp:u@-oProxyCommand=evil:/x", ssh...), "sftp:USER@HOST"},
		{"sftp with a space", base("sftp:u@nas -oX=y:/x", ssh...), "sftp:USER@HOST"},
		{"sftp with words as the port", base("sftp://u@nas:ssh/x", ssh...), "sftp:USER@HOST"},
		{"sftp without a user", base("sftp:nas:/x", ssh...), "sftp:USER@HOST"},
		{"rclone reads files of the node", base("rclone:remote:path"), "must be a path below"},
		{"gs reads files of the node", base("gs:bucket:/"), "must be a path below"},
		{"no password", map[string][]byte{"repository": []byte("/srv/b")}, "password is missing"},
		{"two lines", base("/srv/b", "password", "a\nb"), "password has control characters"},
		{"too long", base("/srv/b", "password", strings.Repeat("x", 40<<10)), "at most 32768"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := api.BackupProblem(tt.values)
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("problem %q, want %q", got, tt.want)
			}
			for key, value := range tt.values {
				if len(value) > 7 && strings.Contains(got, string(value)) {
					t.Errorf("problem %q contains the value of %s", got, key)
				}
			}
		})
	}
}

// TestBackupIsNoPartOfAContainer: a change of spec.backup recreates no container, and the default of pause changes nothing.
func TestBackupIsNoPartOfAContainer(t *testing.T) {
	spec := func(b *carav1.Backup) *carav1.ProjectSpec {
		return &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: "x"}}, Volumes: []*carav1.ProjectVolume{{Name: "d", Type: api.VolumeManaged}}, Backup: b}
	}
	yes, no := true, false
	plain := spec(&carav1.Backup{SecretRef: "s", Schedule: &carav1.BackupSchedule{Cron: "0 3 * * *"}})
	spelled := spec(&carav1.Backup{
		SecretRef: "s", Pause: &yes, Hooks: &carav1.BackupHooks{}, Schedule: &carav1.BackupSchedule{Cron: " 0  3 * * *", TimeZone: "UTC"},
	})
	if api.Hash(plain) != api.Hash(spelled) {
		t.Error("defaults change the hash of the spec")
	}
	if api.Hash(plain) == api.Hash(spec(&carav1.Backup{SecretRef: "s", Pause: &no, Schedule: plain.Backup.Schedule})) {
		t.Error("pause: false does not change the hash of the spec")
	}
	if diff := cmp.Diff(api.ServiceHash(spec(nil), "a"), api.ServiceHash(plain, "a")); diff != "" {
		t.Errorf("a backup changes the container: %s", diff)
	}
}

package backup

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestBackupArgs(t *testing.T) {
	v := Volume{Name: "db", UID: "0123", Path: "/var/lib/docker/volumes/cara-shop.db-0123/_data"}
	tests := []struct {
		name, parent string
		first        bool
		want         string
	}{
		{"first pass", "", true, "backup --json --one-file-system --host cara --tag project=shop --tag volume=db --tag uid=0123 --tag pass=first -- _data"},
		{"second pass", "abcdef01", false, "backup --json --one-file-system --host cara --tag project=shop --tag volume=db --tag uid=0123 --parent abcdef01 -- _data"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, strings.Join(backupArgs("shop", v, tt.parent, tt.first), " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestKeepArgs(t *testing.T) {
	const begin = "forget --json --host cara --tag project=shop,volume=db --group-by host --prune --max-unused 10%"
	tests := []struct {
		name string
		keep *carav1.BackupKeep
		want string
	}{
		{"none: all stay", nil, ""},
		{"nothing: all stay", &carav1.BackupKeep{}, ""},
		{"last", &carav1.BackupKeep{Last: 3}, begin + " --keep-last 3"},
		{"all rules", &carav1.BackupKeep{Last: 1, Daily: 7, Weekly: 4, Monthly: 12}, begin + " --keep-last 1 --keep-daily 7 --keep-weekly 4 --keep-monthly 12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, strings.Join(keepArgs("shop", "db", tt.keep), " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestEnvironment: restic gets the values of the Secret and nothing of the machine but how to reach the network.
func TestEnvironment(t *testing.T) {
	agent := []string{
		"PATH=/evil", "HOME=/root", "LD_PRELOAD=/evil.so", "AWS_ACCESS_KEY_ID=of the machine", "AWS_PROFILE=of the machine",
		"RESTIC_PASSWORD=of the machine", "HTTPS_PROXY=http://proxy:3128", "GOOGLE_APPLICATION_CREDENTIALS=/root/key.json",
	}
	values := map[string][]byte{
		"repository": []byte("s3:https://s3/bucket\n"), "password": []byte("hunter2"), "AWS_ACCESS_KEY_ID": []byte("id\n"), "AWS_SECRET_ACCESS_KEY": []byte("key"),
		"LD_PRELOAD": []byte("/evil.so"), "PATH": []byte("/evil"),
	}
	want := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/data", "LC_ALL=C", "RESTIC_CACHE_DIR=/data/cache", "TMPDIR=/data/tmp", "RESTIC_PROGRESS_FPS=0.1",
		"AWS_EC2_METADATA_DISABLED=true", "RESTIC_REPOSITORY=s3:https://s3/bucket", "RESTIC_PASSWORD_FILE=/proc/1/fd/7", "HTTPS_PROXY=http://proxy:3128",
		"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=key",
	}
	if diff := cmp.Diff(want, environment(agent, values, "/data", "/proc/1/fd/7")); diff != "" {
		t.Error(diff)
	}
}

func TestSSHArgs(t *testing.T) {
	const begin = "ssh -F /dev/null -E /proc/1/fd/10 -i /proc/1/fd/8 -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes" +
		" -o UserKnownHostsFile=/proc/1/fd/9 -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=20 -o ServerAliveInterval=20 "
	tests := []struct {
		repository string
		want       []string
	}{
		{"/srv/backups", nil},
		{"sftp:backup@nas:/srv", []string{"-o", "sftp.command=" + begin + "-l backup nas -s sftp"}},
		{"sftp://backup@nas:2222//srv", []string{"-o", "sftp.command=" + begin + "-p 2222 -l backup nas -s sftp"}},
	}
	for _, tt := range tests {
		t.Run(tt.repository, func(t *testing.T) {
			got := sshArgs(map[string][]byte{"repository": []byte(tt.repository)}, "/proc/1/fd/8", "/proc/1/fd/9", "/proc/1/fd/10")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAllowed(t *testing.T) {
	tests := []struct {
		repository string
		dirs       []string
		want       bool
	}{
		{"s3:https://s3/bucket", nil, true},
		{"/srv/backups/shop", nil, false},
		{"/srv/backups/shop", []string{"/srv/backups"}, true},
		{"/srv/backups", []string{"/srv/backups"}, true},
		{"/srv/backups2", []string{"/srv/backups"}, false},
		{"/etc", []string{"/srv/backups", "/mnt"}, false},
		{"/mnt/..a", []string{"/srv/backups", "/mnt"}, true},
	}
	for _, tt := range tests {
		if err := allowed(tt.repository, tt.dirs); (err == nil) != tt.want {
			t.Errorf("%s below %v: %v", tt.repository, tt.dirs, err)
		}
	}
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name   string
		code   int
		stderr string
		want   api.Reason
	}{
		{"success", 0, "warning: wrong password or no key found", ""},
		{"wrong password", 1, "Fatal: wrong password or no key found\n", api.ReasonWrongPassword},
		{"no repository", 1, "Fatal: unable to open config file: stat /srv/b/config: no such file or directory\nIs there a repository at the following location?\n/srv/b\n", reasonMissing},
		{"no repository in a bucket", 1, "Fatal: unable to open config file: Stat: The specified key does not exist.\nIs there a repository at the following location?\ns3:http://s3/b\n", reasonMissing},
		{
			"a server that is away", 1,
			"Fatal: unable to open config file: Stat: Get \"http://127.0.0.1:1/b/?location=\": dial tcp 127.0.0.1:1: connect: connection refused\nIs there a repository at the following location?\ns3:http://127.0.0.1:1/b\n",
			api.ReasonRepositoryUnreachable,
		},
		{"stopped while it tried", -1, "Fatal: unable to open config file: context canceled\nIs there a repository at the following location?\nx\ncontext deadline exceeded", api.ReasonRepositoryUnreachable},
		{"ssh", 1, "subprocess ssh: u@nas: Permission denied (publickey).\nFatal: unable to open repository at sftp:u@nas:/x: unable to start the sftp session, error: EOF\n", api.ReasonRepositoryDenied},
		{"another host key", 1, "subprocess ssh: Host key verification failed.\nFatal: unable to open repository", api.ReasonRepositoryDenied},
		{"s3 refuses", 1, "Fatal: unable to open config file: Stat: The Access Key Id you provided does not exist in our records. InvalidAccessKeyId\nIs there a repository", api.ReasonRepositoryDenied},
		{"full", 1, "Fatal: unable to save snapshot: write /srv/b/tmp: no space left on device", api.ReasonRepositoryFull},
		{"locked", 1, "unable to create lock in backend: repository is already locked exclusively by PID 42 on host by root", api.ReasonRepositoryLocked},
		{"damaged", 1, "Fatal: load <data/1234>: ciphertext verification failed", api.ReasonRepositoryCorrupted},
		{"files that cannot be read", 3, "error: open /x: permission denied\nWarning: at least one source file could not be read", api.ReasonVolumeUnreadable},
		{"stopped", -1, "signal: killed\ncontext canceled", api.ReasonBackupFailed},
		{"unknown", 1, "Fatal: something new", api.ReasonBackupFailed},
		{"silent", 1, "", api.ReasonBackupFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got api.Reason
			f := judge("copying volume db", outcome{code: tt.code, stderr: tt.stderr})
			if f != nil {
				got = f.Reason
				if !strings.HasPrefix(f.Message, "copying volume db: ") {
					t.Errorf("message %q does not say what was done", f.Message)
				}
			}
			if got != tt.want {
				t.Errorf("reason %q, want %q: %v", got, tt.want, f)
			}
		})
	}
}

func TestParse(t *testing.T) {
	out := `{"message_type":"status","percent_done":1}` + "\n" + `{"message_type":"summary","data_added":1390,"total_bytes_processed":6,"snapshot_id":"7d13a238"}` + "\n"
	if got, ok := parseSummary([]byte(out)); !ok || got != (summary{"summary", "7d13a238", 6, 1390}) {
		t.Errorf("summary %+v, %t", got, ok)
	}
	for _, bad := range []string{"", "not json", `{"message_type":"summary","snapshot_id":"--help"}`, `{"message_type":"summary"}`} {
		if got, ok := parseSummary([]byte(bad)); ok {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	ids, err := parseIDs([]byte(`[{"id":"7d13a2382e44a714"},{"id":"--keep-last"},{"id":"0123456789abcdef"}]`))
	if want := []string{"7d13a2382e44a714", "0123456789abcdef"}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("ids %v, %v", ids, err)
	}
	if _, err := parseIDs([]byte("no list")); err == nil {
		t.Error("no error for a text that is no list")
	}
}

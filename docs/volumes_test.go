package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dataTests are the tests of the table "What happens to my data" of volumes.md, by the beginning of the row: each shows what
// the row says.
func dataTests() map[string][]string {
	return map[string][]string{
		"a service restarts, crashes":                                       {"e2e.TestDataRounds", "agent.TestRealDataUnderKills"},
		"the image or another field is updated":                             {"e2e.TestDataOutlivesItsProject", "agent.TestRealDataSurvives"},
		"an update fails":                                                   {"agent/step.TestManagedVolumeOutlivesProject", "e2e.TestDataRounds"},
		"a mount leaves a service":                                          {"apiserver.TestUpdateNeverDeletesData"},
		"the volume leaves the manifest":                                    {"apiserver.TestUpdateNeverDeletesData", "e2e.TestDataOutlivesItsProject"},
		"the volume is renamed in the manifest":                             {"e2e.TestDataOutlivesItsProject"},
		"the project is deleted, pruned or expires, with `reclaim: Retain`": {"e2e.TestDataOutlivesItsProject", "e2e.TestDataRounds"},
		"the project is deleted, pruned or expires, with `reclaim: Delete`": {"e2e.TestDataOutlivesItsProject", "apiserver.TestReclaimOfTheNewestManifest"},
		"the source is deleted with `onDelete: Orphan`":                     {"e2e.TestLawSourceDeleted", "apiserver.TestDataOfAnOrphan"},
		"the source is deleted with `onDelete: Delete`":                     {"e2e.TestLawSourceDeleted", "e2e.TestDataOutlivesItsProject"},
		"the project is deleted by force":                                   {"apiserver.TestDeletedDataIsGoneWhenItsNodeSaysSo", "apiserver.TestDataComesBack"},
		"a project of the same name is created by the same owner":           {"apiserver.TestDataComesBack", "e2e.TestDataOutlivesItsProject"},
		"a project of the same name is created by another owner":            {"plan.TestReattaches", "apiserver.TestDataOfAnotherOwner"},
		"its node is cordoned":                                              {"e2e.TestProjectStaysWithItsData"},
		"its node is drained |":                                             {"scheduler.TestADrainLeavesData", "e2e.TestDrainMovesData"},
		"its node is drained with `--move-data`":                            {"e2e.TestDrainMovesData"},
		"the project is moved with `caractrl move`":                         {"e2e.TestMoveKeepsEverything", "e2e.TestDataRounds"},
		"a move is cancelled, fails":                                        {"e2e.TestMoveSurvivesKills", "e2e.TestDrainMovesData"},
		"the project is moved and later deleted":                            {"apiserver.TestTheOldCopyIsNotHandedOut"},
		"its node is lost (switched off":                                    {"scheduler.TestAProjectWaitsForTheLostNodeWithItsData"},
		"its node is lost, with `onNodeLoss: Restore`":                      {"scheduler.TestALostNodesDataIsRestored", "scheduler.TestARestoreIsCancelledWhenTheNodeReturns", "apiserver.TestRestoreOnAnotherNode", "e2e.TestRestoreAfterTheLossOfANode"},
		"the project is restored with `caractrl restore`":                   {"apiserver.TestRestoreOnTheSameNode", "apiserver.TestRestoreOfLostData", "agent.TestRestoreVolume", "agent/step.TestRestoredVolume", "e2e.TestRestore", "e2e.TestDataRounds"},
		"a restore is cancelled, fails":                                     {"apiserver.TestARestoreThatEndsChangesNothing", "apiserver.TestARestoreSurvivesARestartOfTheServer", "agent.TestRestoreAndTheAgent", "agent.TestRestoreFails", "e2e.TestDataRounds"},
		"its node is deleted":                                               {"apiserver.TestDataOfADeletedNode", "scheduler.TestTheNodeWithTheDataIsDeleted"},
		"the machine joins under another name":                              {"agent.TestSweepLeavesData"},
		"the agent restarts":                                                {"agent.TestRealDataUnderKills", "e2e.TestDataOutlivesItsProject"},
		"the agent's data directory is lost":                                {"agent.TestRealDataSurvives"},
		"`docker volume prune`":                                             {"agent.TestRealDataSurvives"},
		"the Docker volume is removed by hand":                              {"e2e.TestLostDataIsNeverReplaced", "agent.TestRealDataIsNotReplaced"},
		"the node's disk fails":                                             {"agent.TestDataIsNeverReplaced"},
		"the server is restored from an older backup":                       {"apiserver.TestFoundDataGoesToAProjectThatWaits", "apiserver.TestNewerDataOfARestoredServer", "apiserver.TestPlantedVolume", "apiserver.TestAUsedCopyIsKept", "agent.TestAUsedVolumeIsNoUnusedCopy"},
		"the server's state is lost completely":                             {"agent.TestSweepLeavesData"},
		"`caractrl delete volume`":                                          {"cli.TestDeleteVolumeNamesTheData", "apiserver.TestDeletedDataIsGoneWhenItsNodeSaysSo"},
		"`caractrl recreate volume`":                                        {"apiserver.TestLostData", "e2e.TestLostDataIsNeverReplaced"},
		"an `Ephemeral` volume":                                             {"agent/step.TestManagedVolumeOutlivesProject"},
		"a `Host` volume":                                                   {"agent.TestRealHostVolume"},
	}
}

// TestDataTableIsTested: each row of the table has its tests, and they exist.
func TestDataTableIsTested(t *testing.T) {
	text, err := os.ReadFile("volumes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "\n| what happens | what happens to the data |\n|---|---|\n")
	if !ok {
		t.Fatal("volumes.md has no table of what happens to the data")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	known := dataTests()
	for row := range strings.Lines(table) {
		row = strings.TrimPrefix(strings.TrimSpace(row), "| ")
		tests := 0
		for begin, names := range known {
			if strings.HasPrefix(row, begin) {
				tests += len(names)
				delete(known, begin)
			}
		}
		if tests == 0 {
			t.Errorf("the row %q has no test", row)
		}
	}
	for begin := range known {
		t.Errorf("volumes.md has no row %q", begin)
	}
	for begin, names := range dataTests() {
		for _, name := range names {
			if !testExists(t, name) {
				t.Errorf("%q is tested by %s, which does not exist", begin, name)
			}
		}
	}
}

// testExists reports whether a test, such as agent/step.TestX, exists in its room.
func testExists(t *testing.T, name string) bool {
	t.Helper()
	room, test, _ := strings.Cut(name, ".")
	files, err := filepath.Glob(filepath.Join("..", room, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test+"(") {
			return true
		}
	}
	return false
}

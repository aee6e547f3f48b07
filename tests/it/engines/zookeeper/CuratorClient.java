// Apache Curator's locks, told what to do line by line.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.retry.RetryOneTime;

public class CuratorClient {
    public static void main(String[] arguments) throws Exception {
        int session = Integer.parseInt(arguments[1]);
        CuratorFramework client =
            CuratorFrameworkFactory.newClient(arguments[0], session, 15000, new RetryOneTime(100));
        client.start();
        client.blockUntilConnected();
        String path = arguments[2];
        if (arguments[3].startsWith("leader=")) {
            campaign(client, path, arguments[3].substring("leader=".length()));
        }
        InterProcessLock lock = switch (arguments[3]) {
            case "read" -> new InterProcessReadWriteLock(client, path).readLock();
            case "write" -> new InterProcessReadWriteLock(client, path).writeLock();
            default -> new InterProcessMutex(client, path);
        };
        say("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            switch (line) {
                case "try" -> say(String.valueOf(lock.acquire(0, TimeUnit.MILLISECONDS)));
                case "wait" -> { lock.acquire(); say("taken"); }
                case "release" -> { lock.release(); say("released"); }
                default -> say("what is " + line + "?");
            }
        }
        System.exit(0);
    }

    private static void campaign(CuratorFramework client, String path, String id) throws Exception {
        SynchronousQueue<String> ends = new SynchronousQueue<>();
        LeaderSelector selector = new LeaderSelector(client, path, new LeaderSelectorListenerAdapter() {
            @Override
            public void takeLeadership(CuratorFramework client) throws Exception {
                say("taken");
                ends.take();
            }
        });
        selector.setId(id);
        say("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            switch (line) {
                case "wait" -> selector.start();
                case "leader" -> say(selector.getLeader().getId());
                case "release" -> { ends.put(""); say("released"); }
                default -> say("what is " + line + "?");
            }
        }
        System.exit(0);
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
